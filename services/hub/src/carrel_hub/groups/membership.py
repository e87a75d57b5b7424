"""Who is in which group."""

from collections.abc import Iterable

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.db.models import Group, User, UserGroup
from carrel_hub.rbac import NO_MEMBERS, Members


async def members_for(session: AsyncSession, scopes: Iterable[str]) -> Members:
    """Return who is in the groups that scopes are filtered by. Asks nothing when there is none."""
    names = {text.partition("!group=")[2] for text in scopes} - {""}
    if not names:
        return NO_MEMBERS
    statement = (
        select(Group.name, User.name)
        .join(UserGroup, col(UserGroup.group_id) == col(Group.id))
        .join(User, col(User.id) == col(UserGroup.user_id))
        .where(col(Group.name).in_(names))
    )
    found: dict[str, set[str]] = {}
    for group, user in (await session.exec(statement)).all():
        found.setdefault(group, set()).add(user)
    return found


async def groups_of(session: AsyncSession, user_ids: Iterable[int]) -> dict[int, list[str]]:
    """Return the names of the groups of each of these users, in order."""
    statement = (
        select(UserGroup.user_id, Group.name)
        .join(Group, col(Group.id) == col(UserGroup.group_id))
        .where(col(UserGroup.user_id).in_(list(user_ids)))
        .order_by(col(Group.name))
    )
    found: dict[int, list[str]] = {}
    for user_id, name in (await session.exec(statement)).all():
        found.setdefault(user_id, []).append(name)
    return found

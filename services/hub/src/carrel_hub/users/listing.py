"""Users in pages: a fixed number of queries, however many there are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select
from sqlmodel import col, func, or_, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from carrel_hub.db.models import Group, Server, User, UserGroup
from carrel_hub.errors import InvalidRequestError
from carrel_hub.groups.membership import groups_of
from carrel_hub.rbac import Extent
from carrel_hub.spawns.states import ENDED, State
from carrel_hub.users.paging import Page

_SORTS = {"id": col(User.id), "name": col(User.name), "last_activity": col(User.last_activity)}


@dataclass(frozen=True, slots=True)
class Listed:
    """A user with what is shown of them."""

    user: User
    servers: Sequence[Server]
    groups: Sequence[str]


async def list_users(
    session: AsyncSession,
    seen: Extent,
    page: Page,
    *,
    state: str | None = None,
    name_filter: str = "",
    sort: str = "id",
    with_stopped: bool = False,
) -> tuple[list[Listed], int]:
    """Return one page of users, and how many there are in all.

    Args:
        seen: Over whom the caller may list; nobody else is counted either.
        state: `active`, `ready` or `inactive`; None for all.
        name_filter: A part of the name.
        sort: `id`, `name` or `last_activity`, with `-` in front for the other direction. Who was
            never active comes before the others.
        with_stopped: Return stopped servers too.

    Raises:
        InvalidRequestError: There is no such state or order.
    """
    wanted = conditions(seen, state, name_filter)
    statement = select(User).where(*wanted).order_by(*order(sort))
    users = (await session.exec(statement.offset(page.offset).limit(page.limit))).all()
    total = len(users)
    if page.offset or total == page.limit:
        count = select(func.count()).select_from(User).where(*wanted)
        total = (await session.exec(count)).one()
    return await with_details(session, users, with_stopped=with_stopped), total


async def with_details(
    session: AsyncSession, users: Sequence[User], *, with_stopped: bool = False
) -> list[Listed]:
    """Return users with their servers and groups, in the same order."""
    ids = [user.id for user in users if user.id is not None]
    statement = select(Server).where(col(Server.user_id).in_(ids))
    if not with_stopped:
        statement = statement.where(col(Server.state).not_in([*ENDED]))
    servers: dict[int, list[Server]] = {}
    for row in (await session.exec(statement)).all():
        servers.setdefault(row.user_id, []).append(row)
    groups = await groups_of(session, ids)
    return [
        Listed(user, servers.get(user.id or 0, ()), groups.get(user.id or 0, ())) for user in users
    ]


def conditions(seen: Extent, state: str | None, name_filter: str) -> list[ColumnElement[bool]]:
    """Return what the users of a list have in common.

    Raises:
        InvalidRequestError: There is no such state.
    """
    found = [*_visible(seen), *_in_state(state)]
    if name_filter:
        found.append(func.lower(User.name).contains(name_filter.lower(), autoescape=True))
    return found


def _visible(seen: Extent) -> list[ColumnElement[bool]]:
    if seen.all:
        return []
    members = (
        select(UserGroup.user_id)
        .join(Group, col(Group.id) == col(UserGroup.group_id))
        .where(col(Group.name).in_(seen.groups))
    )
    return [or_(col(User.name).in_(seen.users), col(User.id).in_(members))]


def _in_state(state: str | None) -> list[ColumnElement[bool]]:
    if state is None:
        return []
    own: Select[tuple[str]] | SelectOfScalar[str] = select(Server.id).where(
        Server.user_id == User.id
    )
    # Each on its own: a list among its values is nothing that can be prepared.
    active = own.where(*(col(Server.state) != ended for ended in ENDED)).exists()
    if state == "active":
        return [active]
    if state == "inactive":
        return [~active]
    if state == "ready":
        return [own.where(col(Server.state) == State.READY).exists()]
    raise InvalidRequestError("state must be one of active, inactive, ready")


def order(sort: str) -> tuple[Any, Any]:
    """Return the columns to sort by.

    Raises:
        InvalidRequestError: There is no such order.
    """
    column = _SORTS.get(sort.removeprefix("-"))
    if column is None or sort.startswith("--"):
        raise InvalidRequestError("sort must be one of id, name, last_activity, or -id and so on")
    if sort.startswith("-"):
        return column.desc().nulls_last(), col(User.id).desc()
    return column.asc().nulls_first(), col(User.id)

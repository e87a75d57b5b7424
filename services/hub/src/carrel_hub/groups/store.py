"""Rows of groups: made, filled, emptied, listed in a fixed number of queries."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy.exc import IntegrityError
from sqlmodel import col, delete, func, or_, select
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.auth.names import InvalidNameError
from carrel_hub.auth.settings import AuthSettings
from carrel_hub.db.models import Group, User, UserGroup
from carrel_hub.errors import ConflictError, InvalidRequestError
from carrel_hub.events import HUB_ACTOR, record, user_actor
from carrel_hub.rbac import Extent, RoleBook
from carrel_hub.routing.changes import decide_anew, revoke
from carrel_hub.shares.store import servers_shared_with
from carrel_hub.users.paging import Page
from carrel_shared.wire.routes import Revocation


def group_subject(name: str) -> str:
    """Return the subject of events that stands for a group."""
    return f"group:{name}"


async def find_group(session: AsyncSession, name: str) -> Group | None:
    """Return the group of that name."""
    return (await session.exec(select(Group).where(Group.name == name))).first()


async def find_users(
    session: AsyncSession, raw: Iterable[str], settings: AuthSettings
) -> list[User]:
    """Return the users of these names, each once.

    Raises:
        InvalidRequestError: One does not exist.
    """
    names = list(dict.fromkeys(_spelling(name, settings) for name in raw))
    if not names:
        return []
    rows = (await session.exec(select(User).where(col(User.name).in_(names)))).all()
    unknown = set(names) - {row.name for row in rows}
    if unknown:
        raise InvalidRequestError(f"No such user: {min(unknown)[:255]}")
    return sorted(rows, key=lambda row: names.index(row.name))


async def create_groups(
    session: AsyncSession, names: Sequence[str], users: Sequence[User], *, at: datetime, actor: str
) -> list[Group]:
    """Make groups with the same users in each.

    Raises:
        ConflictError: One exists; none is made then.
    """
    taken = (await session.exec(select(Group.name).where(col(Group.name).in_(list(names))))).all()
    if taken:
        raise ConflictError(f"Group {min(taken)} already exists")
    groups = [Group(name=name, created=at) for name in names]
    session.add_all(groups)
    try:
        await session.flush()
    except IntegrityError as error:
        raise ConflictError("One of these groups was made in this moment; try again") from error
    for group in groups:
        record(session, "group.created", actor, group_subject(group.name), at=at)
        await add_members(session, group, users, at=at, actor=actor)
    return groups


async def add_members(
    session: AsyncSession, group: Group, users: Sequence[User], *, at: datetime, actor: str
) -> None:
    """Put users into a group; who is in it stays."""
    there = set(
        (await session.exec(select(UserGroup.user_id).where(UserGroup.group_id == group.id))).all()
    )
    new = [user for user in users if user.id not in there]
    for user in new:
        assert group.id is not None and user.id is not None  # noqa: S101, PT018 - from the database
        session.add(UserGroup(group_id=group.id, user_id=user.id))
    await session.flush()
    if new:
        record(
            session,
            "group.joined",
            actor,
            group_subject(group.name),
            at=at,
            data={"users": [user.name for user in new]},
        )


async def join_group(session: AsyncSession, user: User, name: str, *, at: datetime) -> None:
    """Put somebody into a group, made if need be, because of how they signed in."""
    group = await find_group(session, name)
    actor = user_actor(user.name)
    if group is None:
        [group] = await create_groups(session, [name], [], at=at, actor=HUB_ACTOR)
    await add_members(session, group, [user], at=at, actor=actor)


async def remove_members(
    session: AsyncSession,
    group: Group,
    users: Sequence[User],
    book: RoleBook,
    *,
    at: datetime,
    actor: str,
) -> None:
    """Take users out of a group; who is not in it stays out."""
    await session.exec(
        delete(UserGroup).where(
            col(UserGroup.group_id) == group.id,
            col(UserGroup.user_id).in_([user.id for user in users]),
        )
    )
    names = [user.name for user in users]
    record(session, "group.left", actor, group_subject(group.name), at=at, data={"users": names})
    await _decide_anew(session, group, users, book, await servers_shared_with(session, group))


async def delete_group(
    session: AsyncSession, group: Group, book: RoleBook, *, at: datetime, actor: str
) -> None:
    """Delete a group, and what was shared with it. Its users stay."""
    members = select(User).join(UserGroup, col(UserGroup.user_id) == col(User.id))
    users = (await session.exec(members.where(UserGroup.group_id == group.id))).all()
    shared = await servers_shared_with(session, group)
    await session.exec(delete(Group).where(col(Group.id) == group.id))
    record(session, "group.deleted", actor, group_subject(group.name), at=at)
    session.expunge(group)
    await _decide_anew(session, group, users, book, shared)


async def _decide_anew(
    session: AsyncSession,
    group: Group,
    users: Sequence[User],
    book: RoleBook,
    shared: Sequence[str],
) -> None:
    """Have every proxy ask again about whatever these users may do, or others with what is theirs.

    Args:
        shared: The ids of the servers that the group was given.
    """
    await decide_anew(session, [user.id for user in users])
    for server_id in shared:
        await revoke(session, Revocation(server_id=server_id))
    if book.granted_by_group(group.name):
        for user in users:
            await revoke(session, Revocation(user=user.name, ask_first=True))


async def member_names(session: AsyncSession, groups: Sequence[Group]) -> dict[int, list[str]]:
    """Return the names of the users in each of these groups, in the order they were made."""
    statement = (
        select(UserGroup.group_id, User.name)
        .join(User, col(User.id) == col(UserGroup.user_id))
        .where(col(UserGroup.group_id).in_([group.id for group in groups]))
        .order_by(col(User.id))
    )
    found: dict[int, list[str]] = {}
    for group_id, name in (await session.exec(statement)).all():
        found.setdefault(group_id, []).append(name)
    return found


async def list_groups(session: AsyncSession, seen: Extent, page: Page) -> tuple[list[Group], int]:
    """Return one page of groups, and how many the caller may list in all."""
    visible = [] if seen.all else [or_(col(Group.name).in_(seen.groups))]
    statement = select(Group).where(*visible).order_by(col(Group.id))
    groups = (await session.exec(statement.offset(page.offset).limit(page.limit))).all()
    total = (await session.exec(select(func.count()).select_from(Group).where(*visible))).one()
    return list(groups), total


def _spelling(raw: str, settings: AuthSettings) -> str:
    try:
        return settings.name_of(raw)
    except InvalidNameError as error:
        raise InvalidRequestError(f"No such user: {raw[:255]}") from error

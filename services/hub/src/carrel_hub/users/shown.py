"""What the REST API shows of users and their servers, read in no more time than that takes.

These are rows and no entities: as quick to read as the database answers, and nothing that could be
changed by mistake.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, bindparam
from sqlalchemy import select as columns
from sqlmodel import col, func
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.db.engine import Database
from carrel_hub.db.models import Group, Server, User, UserGroup
from carrel_hub.db.prepared import Prepared
from carrel_hub.groups.membership import groups_of
from carrel_hub.rbac import Extent
from carrel_hub.spawns.states import ENDED
from carrel_hub.users.listing import conditions, order
from carrel_hub.users.paging import Page


class ShownUser(NamedTuple):
    """A user, as `db.models.User`."""

    id: int
    name: str
    admin: bool
    created: datetime
    last_activity: datetime | None


class ShownServer(NamedTuple):
    """A server, as `db.models.Server`."""

    id: str
    user_id: int
    name: str
    display_name: str
    state: str
    generation: int
    host: str | None
    runner: str | None
    user_options: dict[str, Any]
    started_at: datetime | None
    last_activity: datetime | None


@dataclass(frozen=True, slots=True)
class Shown:
    """A user with what is shown of them."""

    user: User | ShownUser
    servers: Sequence[Server | ShownServer]
    groups: Sequence[str]


_OF_USER = [col(getattr(User, name)) for name in ShownUser._fields]
_OF_SERVER = [col(getattr(Server, name)) for name in ShownServer._fields]
_RUNNING = [col(Server.state) != state for state in ENDED]

_BY_ID = Prepared(columns(*_OF_USER).where(col(User.id) == bindparam("who")), ShownUser)
_BY_NAME = Prepared(columns(*_OF_USER).where(col(User.name) == bindparam("who")), ShownUser)
_ALL_SERVERS = Prepared(
    columns(*_OF_SERVER).where(col(Server.user_id) == bindparam("who")), ShownServer
)
_SERVERS = Prepared(_ALL_SERVERS.statement.where(*_RUNNING), ShownServer)
_GROUPS: Prepared[str] = Prepared(
    columns(col(Group.name))
    .join(UserGroup, col(UserGroup.group_id) == col(Group.id))
    .where(col(UserGroup.user_id) == bindparam("who"))
    .order_by(col(Group.name)),
    lambda name: name,
)


async def show_user(
    database: Database, who: int | str, *, with_stopped: bool = False
) -> Shown | None:
    """Return a user by id or by name, as of now.

    Args:
        with_stopped: Return stopped servers too.
    """
    user = await database.fetch_one(_BY_ID if isinstance(who, int) else _BY_NAME, who=who)
    if user is None:
        return None
    servers = await database.fetch(_ALL_SERVERS if with_stopped else _SERVERS, who=user.id)
    return Shown(user, servers, await database.fetch(_GROUPS, who=user.id))


@dataclass(frozen=True, slots=True)
class _Pages:
    """Statements for the pages of one kind of list over everybody."""

    users: Prepared[ShownUser]
    servers: Prepared[ShownServer]
    groups: Prepared[tuple[int, str]]
    count: Prepared[int]


def _is_everybody_by_id(state: str | None, sort: str) -> bool:
    """Whether the users of a page are all there are between its first and its last."""
    return state is None and sort in _OTHER_WAY


_OTHER_WAY = {"id": "-id", "-id": "id"}


@lru_cache(64)
def _pages(state: str | None, sort: str, with_stopped: bool) -> _Pages:
    wanted = conditions(Extent(all=True), state, "")
    page = columns(*_OF_USER).where(*wanted).order_by(*order(sort))
    page = page.offset(bindparam("skip", type_=BigInteger)).limit(
        bindparam("most", type_=BigInteger)
    )
    shown = page.with_only_columns(col(User.id)).subquery()

    def of_page(column: Any) -> Any:
        if _is_everybody_by_id(state, sort):
            return column.between(bindparam("low"), bindparam("high"))
        return column.in_(columns(shown.c.id))

    running = () if with_stopped else _RUNNING
    return _Pages(
        Prepared(page, ShownUser),
        Prepared(
            columns(*_OF_SERVER).where(of_page(col(Server.user_id)), *running),
            ShownServer,
        ),
        Prepared(
            columns(col(UserGroup.user_id), col(Group.name))
            .join(Group, col(Group.id) == col(UserGroup.group_id))
            .where(of_page(col(UserGroup.user_id)))
            .order_by(col(Group.name)),
            lambda user_id, name: (user_id, name),
        ),
        Prepared(columns(func.count()).select_from(User).where(*wanted), int),
    )


async def show_page(
    database: Database,
    seen: Extent,
    page: Page,
    *,
    state: str | None = None,
    name_filter: str = "",
    sort: str = "id",
    with_stopped: bool = False,
) -> tuple[list[Shown], int]:
    """Return one page of users; and if the page is to say so, how many there are in all.

    The arguments are those of `listing.list_users`.
    """
    if not seen.all or name_filter:
        wanted = conditions(seen, state, name_filter)
        async with database.read() as session:
            return await _selected(session, wanted, page, sort, with_stopped=with_stopped)
    asked = _pages(state, sort, with_stopped)
    users = await _users_of_page(database, page, state, sort)
    if not users:
        return [], (await database.fetch_one(asked.count) or 0) if page.described else 0
    ids = [user.id for user in users]
    where = {"skip": page.offset, "most": page.limit, "low": min(ids), "high": max(ids)}
    servers = await database.fetch(asked.servers, **where)
    groups = await database.fetch(asked.groups, **where)
    total = (await database.fetch_one(asked.count) or 0) if page.described else 0
    return _together(users, servers, groups), total


async def _users_of_page(
    database: Database, page: Page, state: str | None, sort: str
) -> list[ShownUser]:
    """Return the users of a page over everybody, come upon from the nearer end.

    What is skipped costs time, so the last page is as quick as the first.
    """
    asked = _pages(state, sort, False)
    if page.offset and _is_everybody_by_id(state, sort):
        total = await database.fetch_one(asked.count) or 0
        most = min(page.limit, total - page.offset)
        if most <= 0:
            return []
        if page.offset > total // 2:
            other = _pages(state, _OTHER_WAY[sort], False)
            skip = total - page.offset - most
            return (await database.fetch(other.users, skip=skip, most=most))[::-1]
    return await database.fetch(asked.users, skip=page.offset, most=page.limit)


async def _selected(
    session: AsyncSession,
    wanted: Sequence[ColumnElement[bool]],
    page: Page,
    sort: str,
    *,
    with_stopped: bool,
) -> tuple[list[Shown], int]:
    """Return one page of some users, and how many there are in all."""
    connection = await session.connection()
    statement = columns(*_OF_USER).where(*wanted).order_by(*order(sort))
    rows = await connection.execute(statement.offset(page.offset).limit(page.limit))
    users = [ShownUser(*row) for row in rows]
    ids, running = [user.id for user in users], () if with_stopped else _RUNNING
    theirs = columns(*_OF_SERVER).where(col(Server.user_id).in_(ids), *running)
    servers = [ShownServer(*row) for row in await connection.execute(theirs)]
    groups = await groups_of(session, ids)
    total = len(users)
    if page.described and (page.offset or total == page.limit):
        count = columns(func.count()).select_from(User).where(*wanted)
        total = (await connection.execute(count)).scalar_one()
    memberships = [(user_id, name) for user_id, names in groups.items() for name in names]
    return _together(users, servers, memberships), total


def _together(
    users: Sequence[ShownUser],
    servers: Iterable[ShownServer],
    groups: Iterable[tuple[int, str]],
) -> list[Shown]:
    theirs: dict[int, list[ShownServer]] = {}
    for row in servers:
        theirs.setdefault(row.user_id, []).append(row)
    names: dict[int, list[str]] = {}
    for user_id, name in groups:
        names.setdefault(user_id, []).append(name)
    return [Shown(user, theirs.get(user.id, ()), names.get(user.id, ())) for user in users]

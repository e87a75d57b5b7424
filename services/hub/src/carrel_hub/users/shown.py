"""What the REST API shows of users and their servers, read in no more time than that takes.

These are rows and no entities: as quick to read as the database answers, and nothing that could be
changed by mistake.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, bindparam
from sqlalchemy import select as columns
from sqlmodel import col, func

from carrel_hub.db.engine import Database
from carrel_hub.db.models import Group, Server, User, UserGroup
from carrel_hub.db.prepared import Prepared
from carrel_hub.rbac import Extent
from carrel_hub.spawns.states import ENDED
from carrel_hub.users.listing import conditions, list_users, order
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


@lru_cache(64)
def _pages(state: str | None, sort: str, with_stopped: bool) -> _Pages:
    wanted = conditions(Extent(all=True), state, "")
    page = columns(*_OF_USER).where(*wanted).order_by(*order(sort))
    page = page.offset(bindparam("skip", type_=BigInteger)).limit(
        bindparam("most", type_=BigInteger)
    )
    shown = page.with_only_columns(col(User.id)).subquery()
    running = () if with_stopped else _RUNNING
    return _Pages(
        Prepared(page, ShownUser),
        Prepared(
            columns(*_OF_SERVER).where(col(Server.user_id).in_(columns(shown.c.id)), *running),
            ShownServer,
        ),
        Prepared(
            columns(col(UserGroup.user_id), col(Group.name))
            .join(Group, col(Group.id) == col(UserGroup.group_id))
            .where(col(UserGroup.user_id).in_(columns(shown.c.id)))
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
        async with database.read() as session:
            listed, total = await list_users(
                session,
                seen,
                page,
                state=state,
                name_filter=name_filter,
                sort=sort,
                with_stopped=with_stopped,
            )
        return [Shown(one.user, one.servers, one.groups) for one in listed], total
    asked, where = _pages(state, sort, with_stopped), {"skip": page.offset, "most": page.limit}
    users = await database.fetch(asked.users, **where)
    servers: dict[int, list[ShownServer]] = {}
    for row in await database.fetch(asked.servers, **where):
        servers.setdefault(row.user_id, []).append(row)
    groups: dict[int, list[str]] = {}
    for user_id, name in await database.fetch(asked.groups, **where):
        groups.setdefault(user_id, []).append(name)
    shown = [Shown(user, servers.get(user.id, ()), groups.get(user.id, ())) for user in users]
    return shown, (await database.fetch_one(asked.count) or 0) if page.described else 0

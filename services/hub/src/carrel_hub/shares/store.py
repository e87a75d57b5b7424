"""Rows of shares: given, taken away, listed; each change in one transaction with its event."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement
from sqlalchemy.orm import aliased
from sqlmodel import col, delete, func, or_, select
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.db.models import Group, Server, Share, User, UserGroup
from carrel_hub.events import record, server_subject
from carrel_hub.rbac import Resource
from carrel_hub.routing.changes import revoke
from carrel_hub.shares.models import Shared
from carrel_hub.shares.scopes import pinned
from carrel_hub.users.paging import Page
from carrel_shared.wire.routes import Revocation

With = User | Group
"""Whom a server is shared with."""


def of_user(user: User) -> list[ColumnElement[bool]]:
    """The condition for shares with a user, those with the user's groups included."""
    groups = select(UserGroup.group_id).where(UserGroup.user_id == user.id)
    return [or_(col(Share.user_id) == user.id, col(Share.group_id).in_(groups))]


async def list_shares(
    session: AsyncSession, where: Sequence[ColumnElement[bool]], page: Page
) -> tuple[list[Shared], int]:
    """Return one page of shares, in the order in which they were given, and how many there are."""
    counted = (
        select(func.count())
        .select_from(Share)
        .join(Server, col(Server.id) == col(Share.server_id))
        .where(*where)
    )
    total = (await session.exec(counted)).one()
    return await _shares(session, where, page.offset, page.limit), total


async def find_share(session: AsyncSession, server: Server, who: With) -> Shared | None:
    """Return what a user or a group was given of a server; a user's groups do not count."""
    where = [col(Share.server_id) == server.id, _is_with(who)]
    return next(iter(await _shares(session, where, 0, 1)), None)


async def grant_share(
    session: AsyncSession,
    server: Server,
    who: With,
    names: Iterable[str],
    *,
    at: datetime,
    actor: str,
) -> None:
    """Let somebody do these things with a server, beside what they may do with it already."""
    statement = select(Share).where(col(Share.server_id) == server.id, _is_with(who))
    row = (await session.exec(statement)).first()
    if row is None:
        row = Share(server_id=server.id, created=at)
        row.user_id = who.id if isinstance(who, User) else None
        row.group_id = who.id if isinstance(who, Group) else None
    new = sorted({*names} - {*row.scopes})
    if not new:
        return
    row.scopes = sorted({*row.scopes, *new})
    session.add(row)
    await session.flush()
    _tell(session, "share.granted", server, who, new, at=at, actor=actor)


async def revoke_share(
    session: AsyncSession,
    server: Server,
    who: With,
    names: Iterable[str] | None,
    *,
    at: datetime,
    actor: str,
) -> None:
    """Take away what somebody was given of a server, here and in every proxy.

    Args:
        names: Of what; None for all of it.
    """
    statement = select(Share).where(col(Share.server_id) == server.id, _is_with(who))
    row = (await session.exec(statement)).first()
    if row is None:
        return
    gone = sorted(row.scopes if names is None else {*names} & {*row.scopes})
    if not gone:
        return
    row.scopes = [name for name in row.scopes if name not in gone]
    if row.scopes:
        session.add(row)
    else:
        await session.delete(row)
    await session.flush()
    _tell(session, "share.revoked", server, who, gone, at=at, actor=actor)
    await revoke(session, Revocation(server_id=server.id))


async def revoke_all(session: AsyncSession, server: Server, *, at: datetime, actor: str) -> None:
    """Take away everything that anybody was given of a server."""
    gone = await session.exec(delete(Share).where(col(Share.server_id) == server.id))
    if gone.rowcount:
        data = {"shares": gone.rowcount}
        subject = server_subject(server.id)
        record(session, "share.revoked", actor, subject, at=at, server_id=server.id, data=data)
        await revoke(session, Revocation(server_id=server.id))


async def shared_scopes(session: AsyncSession, user: User) -> list[str]:
    """Return what others let a user do with their servers, as scopes over each."""
    statement = (
        select(Share.scopes, Server.name, User.name)
        .join(Server, col(Server.id) == col(Share.server_id))
        .join(User, col(User.id) == col(Server.user_id))
        .where(*of_user(user))
    )
    rows = (await session.exec(statement)).all()
    return [
        text for names, server, owner in rows for text in pinned(names, Resource(owner, server))
    ]


async def scopes_of_group(session: AsyncSession, group: Group) -> list[str]:
    """Return what a group's members may do with servers that are shared with it."""
    shares = await _shares(session, [col(Share.group_id) == group.id], 0, None)
    return [text for one in shares for text in pinned(one.share.scopes, one.resource)]


async def servers_shared_with(session: AsyncSession, group: Group) -> list[str]:
    """Return the ids of the servers that a group was given and that proxies have a route to."""
    statement = (
        select(Server.id)
        .join(Share, col(Share.server_id) == col(Server.id))
        .where(col(Share.group_id) == group.id, col(Server.route_number).is_not(None))
    )
    return list((await session.exec(statement)).all())


def _is_with(who: With) -> ColumnElement[bool]:
    return col(Share.user_id if isinstance(who, User) else Share.group_id) == who.id


async def _shares(
    session: AsyncSession, where: Sequence[ColumnElement[bool]], offset: int, limit: int | None
) -> list[Shared]:
    owner, user = aliased(User), aliased(User)
    statement = (
        select(Share, Server, owner.name, func.coalesce(user.name, Group.name))
        .join(Server, col(Server.id) == col(Share.server_id))
        .join(owner, col(owner.id) == col(Server.user_id))
        .join(user, col(user.id) == col(Share.user_id), isouter=True)
        .join(Group, col(Group.id) == col(Share.group_id), isouter=True)
        .where(*where)
        .order_by(col(Share.id))
        .offset(offset)
    )
    if limit is not None:
        statement = statement.limit(limit)
    return [Shared(*row) for row in (await session.exec(statement)).all()]


def _tell(
    session: AsyncSession,
    kind: str,
    server: Server,
    who: With,
    names: list[str],
    *,
    at: datetime,
    actor: str,
) -> None:
    data = {"user" if isinstance(who, User) else "group": who.name, "scopes": names}
    subject = server_subject(server.id)
    record(session, kind, actor, subject, at=at, server_id=server.id, data=data)

"""Share codes: issued for a server, shown once, exchanged for a share by whoever has one."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement
from sqlalchemy.orm import aliased
from sqlmodel import col, delete, func, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.auth.digest import MAX_SECRET_LENGTH, digest, new_secret
from carrel_hub.auth.rights import owner_rights
from carrel_hub.auth.subjects import Subject, is_refused
from carrel_hub.context import Hub
from carrel_hub.db.models import Server, Service, ShareCode, User
from carrel_hub.errors import InvalidRequestError
from carrel_hub.events import record, server_subject, user_actor
from carrel_hub.rbac import Scope, is_within
from carrel_hub.shares.models import Offered
from carrel_hub.shares.scopes import pinned
from carrel_hub.shares.store import grant_share
from carrel_hub.users.paging import Page

MOST_CODES = 100
"""How many codes of one server may be good at a time."""


async def issue_code(
    session: AsyncSession,
    hub: Hub,
    server: Server,
    names: Sequence[str],
    *,
    lifetime: timedelta,
    by: Subject,
) -> tuple[ShareCode, str]:
    """Make a code and return it with its secret, which is known only now.

    Raises:
        InvalidRequestError: The server has as many as may be.
    """
    now, secret = hub.clock.now(), new_secret()
    good = [col(ShareCode.server_id) == server.id, col(ShareCode.expires_at) > now]
    count = select(func.count()).select_from(ShareCode).where(*good)
    if (await session.exec(count)).one() >= MOST_CODES:
        raise InvalidRequestError(
            f"There are {MOST_CODES} links to this server, which is as many as may be; revoke one"
        )
    row = ShareCode(
        code_hash=digest(secret),
        server_id=server.id,
        user_id=by.user.id if by.user else None,
        service_id=by.service.id if by.service else None,
        scopes=list(names),
        created=now,
        expires_at=now + lifetime,
    )
    session.add(row)
    await session.flush()
    _tell(session, hub, "share_code.created", by.actor, server.id, {"code_id": row.id})
    return row, secret


async def list_codes(
    session: AsyncSession, hub: Hub, where: Sequence[ColumnElement[bool]], page: Page
) -> tuple[list[Offered], int]:
    """Return one page of codes that are good still, and how many there are."""
    where = [*where, col(ShareCode.expires_at) > hub.clock.now()]
    counted = (
        select(func.count())
        .select_from(ShareCode)
        .join(Server, col(Server.id) == col(ShareCode.server_id))
        .where(*where)
    )
    total = (await session.exec(counted)).one()
    return await _codes(session, where, page.offset, page.limit), total


async def find_code(session: AsyncSession, hub: Hub, secret: str) -> Offered | None:
    """Return what a code offers now, or None when it offers nothing (any more).

    It ends with its time, with its server, and with its issuer's right to share this.
    """
    if not secret or len(secret) > MAX_SECRET_LENGTH:
        return None
    where = [
        col(ShareCode.code_hash) == digest(secret),
        col(ShareCode.expires_at) > hub.clock.now(),
    ]
    found = await _codes(session, where, 0, 1)
    if not found or not await _may_be_shared(session, hub, found[0]):
        return None
    return found[0]


async def exchange(session: AsyncSession, hub: Hub, offered: Offered, user: User) -> None:
    """Give a user the share that a code offers."""
    now, code = hub.clock.now(), offered.code
    await session.exec(
        update(ShareCode)
        .where(col(ShareCode.id) == code.id)
        .values(exchange_count=col(ShareCode.exchange_count) + 1, last_exchanged_at=now)
        .execution_options(synchronize_session=False)
    )
    actor = user_actor(user.name)
    _tell(session, hub, "share_code.exchanged", actor, code.server_id, {"code_id": code.id})
    await grant_share(session, offered.server, user, code.scopes, at=now, actor=actor)


async def delete_codes(
    session: AsyncSession,
    hub: Hub,
    server: Server,
    *,
    actor: str,
    secret: str | None = None,
    number: int | None = None,
) -> int:
    """Delete codes of a server and return how many there were.

    What was accepted by one stays.

    Args:
        secret: Only the one with this secret.
        number: Only the one of this number.
    """
    statement = delete(ShareCode).where(col(ShareCode.server_id) == server.id)
    if secret is not None:
        statement = statement.where(col(ShareCode.code_hash) == digest(secret))
    if number is not None:
        statement = statement.where(col(ShareCode.id) == number)
    gone = (await session.exec(statement)).rowcount
    if gone:
        _tell(session, hub, "share_code.deleted", actor, server.id, {"codes": gone})
    return int(gone)


async def _may_be_shared(session: AsyncSession, hub: Hub, offered: Offered) -> bool:
    code = offered.code
    issuer = (
        await session.get(User, code.user_id)
        if code.user_id is not None
        else await session.get(Service, code.service_id)
    )
    if issuer is None or (isinstance(issuer, User) and is_refused(hub, issuer)):
        return False
    rights = await owner_rights(session, hub, issuer)
    wanted = pinned([Scope.SHARES, *code.scopes], offered.resource)
    return is_within(wanted, rights.scopes, rights.members)


async def _codes(
    session: AsyncSession, where: Sequence[ColumnElement[bool]], offset: int, limit: int
) -> list[Offered]:
    owner = aliased(User)
    statement = (
        select(ShareCode, Server, owner.name)
        .join(Server, col(Server.id) == col(ShareCode.server_id))
        .join(owner, col(owner.id) == col(Server.user_id))
        .where(*where)
        .order_by(col(ShareCode.id))
        .offset(offset)
        .limit(limit)
    )
    return [Offered(*row) for row in (await session.exec(statement)).all()]


def _tell(
    session: AsyncSession, hub: Hub, kind: str, actor: str, server_id: str, data: dict[str, Any]
) -> None:
    subject, at = server_subject(server_id), hub.clock.now()
    record(session, kind, actor, subject, at=at, server_id=server_id, data=data)

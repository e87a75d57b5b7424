"""Who people are on each host: pinned at their first start, so that nobody becomes somebody else.

A uid that changed would hand somebody's files to another; one that differs between hosts with the
same homes would lock people out of their own.
"""

from datetime import datetime

from sqlalchemy import bindparam
from sqlalchemy import select as columns
from sqlmodel import col, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.db.asking import add_new, ask_one, seen, take_one, to_change
from carrel_hub.db.engine import Database
from carrel_hub.db.models import AgentHost, HostAccount, Server, User
from carrel_hub.db.prepared import Prepared
from carrel_hub.hosts.standing import HOST
from carrel_shared.wire.servers import AccountFacts

_COLUMNS, _make = seen(HostAccount)
_PIN = Prepared(
    columns(*_COLUMNS).where(
        col(HostAccount.user_id) == bindparam("user_id"), col(HostAccount.host) == bindparam("host")
    ),
    _make,
)

_TO_PIN = to_change(HostAccount, "user_id", "host")


async def pinned_uid(database: Database, user: User, host_name: str) -> int | None:
    """Return the uid a user's servers must have on a host; None where that is not known yet."""
    pin = await database.fetch_one(_PIN, user_id=user.id, host=host_name)
    if pin is not None:
        return pin.uid if pin.account == user.account else None
    host = await database.fetch_one(HOST, key=host_name)
    if host is None or not host.homes:
        return None
    async with database.read() as session:
        elsewhere = await _same_homes(session, user.id, host_name)
    return elsewhere.uid if elsewhere and elsewhere.account == user.account else None


async def pin(
    session: AsyncSession, row: Server, host_name: str, facts: AccountFacts, *, at: datetime
) -> str | None:
    """Note who a server runs as; return what is wrong with that, if something is."""
    known = await take_one(session, _TO_PIN, user_id=row.user_id, host=host_name)
    if known is not None and known.account == facts.account and known.uid != facts.uid:
        return (
            f"the account {facts.account!r} was uid {known.uid} on host {host_name} and is"
            f" {facts.uid} now, so its files would be somebody else's; set it back, or have an"
            " administrator forget the old one"
        )
    other = await _same_homes(session, row.user_id, host_name)
    if other is not None and other.account == facts.account and other.uid != facts.uid:
        return (
            f"the account {facts.account!r} is uid {facts.uid} on host {host_name} and"
            f" {other.uid} on host {other.host}, and both have the same homes; make them equal"
        )
    its = {"account": facts.account, "uid": facts.uid, "gid": facts.gid, "home": facts.home}
    if known is None:
        add_new(session, HostAccount, user_id=row.user_id, host=host_name, used_at=at, **its)
        return None
    known.account, known.uid, known.gid = facts.account, facts.uid, facts.gid
    known.home, known.used_at = facts.home, at
    return None


async def forget_pin(session: AsyncSession, user: User, host_name: str) -> bool:
    """Let the next start on a host say anew who somebody is there; return whether it was known."""
    known = await session.get(HostAccount, (user.id, host_name))
    if known is None:
        return False
    await session.exec(
        delete(HostAccount).where(
            col(HostAccount.user_id) == user.id, col(HostAccount.host) == host_name
        )
    )
    return True


async def _same_homes(
    session: AsyncSession, user_id: int | None, host_name: str
) -> HostAccount | None:
    host = await ask_one(session, HOST, key=host_name)
    if host is None or not host.homes:
        return None
    statement = (
        select(HostAccount)
        .join(AgentHost, col(AgentHost.name) == col(HostAccount.host))
        .where(
            HostAccount.user_id == user_id,
            HostAccount.host != host_name,
            AgentHost.homes == host.homes,
        )
        .order_by(col(HostAccount.used_at).desc())
        .limit(1)
    )
    return (await session.exec(statement)).first()

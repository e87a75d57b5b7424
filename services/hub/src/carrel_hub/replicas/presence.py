"""This process among the replicas: it joins, says that it is there, and leaves."""

import hashlib
import secrets
from collections.abc import Sequence

import structlog
from sqlalchemy import ColumnElement, delete, update
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub import __version__
from carrel_hub.auth.signing import signer_for
from carrel_hub.context import ROUTES, Hub
from carrel_hub.db.models import Replica
from carrel_hub.replicas import REPLICAS, alive, gone
from carrel_hub.routing.changes import append_change
from carrel_hub.routing.desired import hub_routes, own_target
from carrel_hub.settings import HubSettings
from carrel_shared.wire.routes import PutRoute

log = structlog.get_logger(__name__)


class UnlikeReplicasError(Exception):
    """Another hub on this database has other settings; the message says which."""


async def join(hub: Hub) -> None:
    """Become one of the replicas, under a new id.

    Proxies are led to this one once it serves (`show`). When there is no other they have nobody
    else to ask, and may as well wait here.

    Raises:
        UnlikeReplicasError: This hub and one that runs would answer differently.
    """
    before, hub.database.replica = hub.database.replica, secrets.token_hex(8)
    agreed, address = what_all_have(hub.settings), own_target(hub.settings)
    now = hub.clock.now()
    try:
        async with hub.database.write() as session:
            addresses = await hub_targets(session)
            await _forget_who_was_here(session, hub, before)
            for other in (await session.exec(select(Replica).where(alive(hub.database)))).all():
                _compare(agreed, other)
            alone = not await hub_targets(session)
            shown = address if alone or hub.wakeups.serving else ""
            me = Replica(
                id=hub.database.replica, address=shown, version=__version__, agreed=agreed,
                started_at=now, seen_at=await _time(session, hub),
            )  # fmt: skip
            session.add(me)
            await session.flush()
            await _route_anew(session, hub, addresses)
    except BaseException:
        hub.database.replica = before
        raise
    log.info("replica_joined", replica=hub.database.replica, address=address)
    await hub.wakeups.notify(REPLICAS, ROUTES)


async def _forget_who_was_here(session: AsyncSession, hub: Hub, before: str) -> None:
    """Delete what this process was, whoever was silent at its address, and who is gone."""
    silent_here = ~alive(hub.database) & (col(Replica.address) == own_target(hub.settings))
    left: ColumnElement[bool] = (col(Replica.id) == before) | silent_here | gone(hub.database)
    if hub.database.is_sqlite:  # its lock says that nobody else is there
        left = col(Replica.id) != ""
    await session.exec(delete(Replica).where(left))


async def show(hub: Hub) -> None:
    """Have proxies reach this replica, which serves from now on."""
    async with hub.database.write() as session:
        addresses = await hub_targets(session)
        mine = (col(Replica.id) == hub.database.replica) & (col(Replica.address) == "")
        address = own_target(hub.settings)
        done = await session.exec(update(Replica).where(mine).values(address=address))
        if not done.rowcount:
            return
        await _route_anew(session, hub, addresses)
    log.info("replica_shown", replica=hub.database.replica, address=address)
    await hub.wakeups.notify(REPLICAS, ROUTES)


async def leave(hub: Hub) -> None:
    """Be no replica any more, so that others go on at once.

    When no other serves, the address stays.
    """
    try:
        async with hub.database.write() as session:
            addresses = await hub_targets(session)
            others = select(Replica.id).where(
                alive(hub.database),
                col(Replica.id) != hub.database.replica,
                col(Replica.address) != "",
            )
            if (await session.exec(others)).first() is None:
                return
            await session.exec(delete(Replica).where(col(Replica.id) == hub.database.replica))
            await _route_anew(session, hub, addresses)
    except SQLAlchemyError as error:
        log.warning("replica_left_without_saying", reason=type(error).__name__)
        return
    log.info("replica_left", replica=hub.database.replica)
    await hub.wakeups.notify(REPLICAS, ROUTES)


async def forget_the_gone(hub: Hub) -> None:
    """Take replicas that ended without a word out of the proxies' tables."""
    async with hub.database.write() as session:
        addresses = await hub_targets(session)
        done = await session.exec(delete(Replica).where(gone(hub.database)))
        if done.rowcount:
            log.warning("replicas_gone", count=done.rowcount)
            await _route_anew(session, hub, addresses)
    await hub.wakeups.notify(REPLICAS, ROUTES)


async def hub_targets(session: AsyncSession) -> list[str]:
    """Return where proxies reach the hubs that serve, each address once."""
    shown = select(Replica.address).where(col(Replica.address) != "")
    found = (await session.exec(shown.order_by(col(Replica.address)))).all()
    return list(dict.fromkeys(found))


def what_all_have(settings: HubSettings) -> dict[str, str]:
    """Return what replicas must have alike, as digests, so that no key is in the database."""
    texts = {
        "base_url": settings.base_url,
        "public_url": settings.public_url or "",
        "user_domains": str(settings.user_domains),
        "api_url": settings.api_url or "",
        "signing_key": signer_for(settings.state_dir).mac("replicas", "alike"),
    }
    return {name: hashlib.sha256(text.encode()).hexdigest()[:16] for name, text in texts.items()}


def _compare(agreed: dict[str, str], other: Replica) -> None:
    unlike = [name for name, digest in agreed.items() if other.agreed.get(name, digest) != digest]
    if unlike:
        where = f"the hub at {other.address}" if other.address else "a hub that is starting"
        raise UnlikeReplicasError(
            f"{where} runs on this database with another hub.{unlike[0]}: give"
            " all replicas the same settings, or stop that one first"
        )


async def _time(session: AsyncSession, hub: Hub):  # type: ignore[no-untyped-def]
    from sqlalchemy import func

    if hub.database.is_sqlite:
        return hub.clock.now()
    return (await session.exec(select(func.clock_timestamp()))).one()


async def _route_anew(session: AsyncSession, hub: Hub, before: Sequence[str]) -> None:
    """Tell proxies when the hub's own addresses have changed."""
    targets = await hub_targets(session)
    if not before or targets == list(before):
        return
    for route in hub_routes(hub.settings, targets):
        await append_change(session, PutRoute(route=route))

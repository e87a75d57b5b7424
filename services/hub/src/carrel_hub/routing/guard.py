"""Keeps a database that has forgotten something from taking away what people use.

A new epoch means that this database is not the one proxies were told of before: restored from a
backup, or made anew by mistake. What a proxy serves and this database does not know of is kept as
the proxy has it until every agent has reported since; and after that for as long as an agent says
that such a server runs, from a start that this database has forgotten. Its secret is in the proxy's
route alone, so people go on using it, until it is stopped.
"""

from collections.abc import Sequence

import structlog
from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.context import Hub
from carrel_hub.db.models import AgentHost, ProxyStatus, RouteCounter, Server
from carrel_hub.hosts.standing import known_names
from carrel_hub.spawns.states import ENDED
from carrel_shared.wire.routes import Route, RouteTable

log = structlog.get_logger(__name__)


async def routes_to_keep(
    session: AsyncSession, hub: Hub, proxy: str, table: RouteTable, there: RouteTable
) -> list[str]:
    """Return which routes of a proxy stay though the hub's table does not have them.

    Args:
        proxy: The proxy's name.
        table: What it is about to be sent.
        there: What it has.
    """
    lost = lost_routes(table, there)
    if there.epoch == table.epoch:  # the log tells what went; the rest was kept before
        status = await session.get(ProxyStatus, proxy)
        before = set(status.kept) if status is not None else set()
        lost = {key: server_id for key, server_id in lost.items() if key in before}
    if not lost or not await agents_have_reported(session, hub):
        return sorted(lost)
    forgotten = select(Server.id).where(
        col(Server.id).in_(list(lost.values())),
        col(Server.state).not_in(ENDED),
        Server.secret == "",
    )
    running = set((await session.exec(forgotten)).all())
    return sorted(key for key, server_id in lost.items() if server_id in running)


def lost_routes(table: RouteTable, there: RouteTable) -> dict[str, str]:
    """Return the servers' routes that a table takes away, with the servers' ids. Pure.

    One that only moves to another path, as after a change of `base_url`, is not taken away.
    """
    if not there.epoch:
        return {}
    known = {_about(route) for route in table.routes} | {_key(route) for route in table.routes}
    return {
        _key(route): _about(route)
        for route in there.routes
        if route.server and known.isdisjoint((_about(route), _key(route)))
    }


async def agents_have_reported(session: AsyncSession, hub: Hub) -> bool:
    """Whether every agent has said what it runs since the epoch began."""
    begun_at = (await session.exec(select(RouteCounter.begun_at))).first()
    if begun_at is None:
        return True
    names = await known_names(session, hub.settings)
    heard = (
        select(func.count())
        .select_from(AgentHost)
        .where(col(AgentHost.name).in_(names), col(AgentHost.seen_at) >= begun_at)
    )
    return (await session.exec(heard)).one() == len(names)


async def note_kept(session: AsyncSession, proxy: str, kept: Sequence[str]) -> None:
    """Store what a proxy is asked to keep, to look at it again."""
    status = await session.get(ProxyStatus, proxy) or ProxyStatus(name=proxy)
    if list(status.kept) != list(kept):
        log.warning("routes_kept", proxy=proxy, count=len(kept))
        status.kept = list(kept)
        session.add(status)


def _about(route: Route) -> str:
    if route.access is not None:
        return route.access.server_id
    return route.stock_client_id or _key(route)


def _key(route: Route) -> str:
    return f"{route.host}{route.prefix}"

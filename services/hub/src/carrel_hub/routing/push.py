"""Pushes the change log to the proxies. One loop for each, of one replica at a time, which alone
writes that proxy's row.

What a proxy has acknowledged is in its row, so a new process goes on where the last one stopped.
Whenever a proxy's answer does not fit, it is sent the whole table.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import structlog
from msgspec.json import encode
from msgspec.structs import replace
from pydantic import ValidationError
from sqlalchemy import bindparam
from sqlalchemy import select as columns
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.context import ROUTES, Hub
from carrel_hub.db.asking import add_new, by_key, take, take_one, to_change
from carrel_hub.db.models import ProxyStatus, RouteChange, Server, Service, User
from carrel_hub.db.prepared import Prepared
from carrel_hub.hosts.standing import relays
from carrel_hub.replicas.leases import hold, still_holds
from carrel_hub.replicas.presence import hub_targets
from carrel_hub.routing.changes import (
    POSITION,
    Position,
    begin_epoch_beyond,
    ensure_counter,
    position,
)
from carrel_hub.routing.desired import desired_routes, origin
from carrel_hub.routing.guard import note_kept, routes_to_keep
from carrel_hub.routing.reach import reached_number
from carrel_hub.settings import PeerSettings
from carrel_hub.spawns.states import State
from carrel_hub.spawns.transitions import promote
from carrel_shared.addresses import parse_address
from carrel_shared.backoff import backoff_seconds
from carrel_shared.calls import Answer, Client, PlainClient, http_errors
from carrel_shared.failpoints import failpoint
from carrel_shared.service_auth import service_headers
from carrel_shared.wire.routes import RouteTable, TableStatus, UnreadableError

log = structlog.get_logger(__name__)

HEARTBEAT_SECONDS = 5.0
"""How often a proxy is asked for its state when there is nothing to push."""

DATABASE_SECONDS = 1.0
"""How soon it is tried again when the database did not answer."""

CALL_SECONDS = 5.0
"""A proxy that takes longer is away: nothing waits for it until it answers again."""

SEEN_SECONDS = 60.0
"""How often `seen_at` is written when nothing else changes."""

MOST_CHANGES = 1000
"""A proxy that is further behind is sent the whole table."""

MOST_ROUNDS = 8
"""How often one turn tries before it calls a proxy that answers strangely away."""


_STATUS = by_key(ProxyStatus, "name")
_TO_STORE = to_change(ProxyStatus, "name")
_REACHED = to_change(Server).where(
    col(Server.state) == State.STARTING, col(Server.route_number) <= bindparam("reached")
)
_CHANGES: Prepared[dict[str, Any]] = Prepared(
    columns(col(RouteChange.payload))
    .where(
        col(RouteChange.number) > bindparam("base"), col(RouteChange.number) <= bindparam("number")
    )
    .order_by(col(RouteChange.number)),
    lambda payload: payload,
)


class ProxyAwayError(Exception):
    """The proxy did not answer, or with nonsense."""


def _connect(peer: PeerSettings) -> Client:
    return PlainClient(parse_address(peer.url), timeout_seconds=CALL_SECONDS)


class Pusher:
    """Keeps one proxy's table up to date.

    Args:
        hub: Settings, database, clock, hints.
        peer: The proxy.
        connect: How its client is made; tests put an application in place of a network.
    """

    def __init__(
        self,
        hub: Hub,
        peer: PeerSettings,
        connect: Callable[[PeerSettings], Client] = _connect,
    ) -> None:
        self._hub = hub
        self._peer = peer
        self._lease = f"proxy:{peer.name}"
        self._client = connect(peer)
        self._failures = 0
        self._heard = float("-inf")

    async def run(self) -> None:
        """Push until cancelled."""
        try:
            with self._hub.wakeups.watch(ROUTES) as watch, ExitStack() as at_end:
                at_end.callback(self._hub.database.on_route_change(watch.ring))
                while True:
                    await watch.wait(await self.turn())
        finally:
            await self.close()

    async def close(self) -> None:
        """Close the connection."""
        await self._client.aclose()

    async def turn(self) -> float:
        """Bring the proxy up to date and return the seconds to rest."""
        try:
            if not await hold(self._hub, self._lease):
                return HEARTBEAT_SECONDS  # another replica pushes; its end wakes this one
            if not await self._is_up_to_date():
                return backoff_seconds(self._failures - 1, longest=HEARTBEAT_SECONDS)
        except SQLAlchemyError as error:
            log.error("push_failed", proxy=self._peer.name, reason=str(error)[:200])
            return DATABASE_SECONDS
        if self._failures:
            log.info("proxy_back", proxy=self._peer.name)
        self._failures = 0
        return HEARTBEAT_SECONDS

    async def _is_up_to_date(self) -> bool:
        try:
            await self.bring_up_to_date()
        except ProxyAwayError as error:
            if self._failures == 0:
                log.warning("proxy_away", proxy=self._peer.name, reason=str(error))
            self._failures += 1
            await self._note_away()
            return False
        return True

    async def bring_up_to_date(self) -> None:
        """Push until the proxy's table is at the newest number. With nothing to push, say hello.

        Raises:
            ProxyAwayError: It does not answer, or never gets there.
        """
        greeted = False
        for _ in range(MOST_ROUNDS):
            status = await self._hub.database.fetch_one(_STATUS, key=self._peer.name)
            newest = await self._hub.database.fetch_one(POSITION)
            if newest is None:
                await self._ensure_counter()
                continue
            known = None if status is None or status.away else Position(status.epoch, status.number)
            if known == newest:
                if greeted or self._hub.clock.monotonic() - self._heard < HEARTBEAT_SECONDS * 0.9:
                    return
                if status is not None and status.kept and await self._keeps_too_much():
                    answer = await self._push(None, newest, keeps=True)
                else:
                    answer = await self._status()
            elif known is None and not greeted:
                answer = await self._status()
            else:
                keeps = status is not None and bool(status.kept)
                answer = await self._push(known, newest, keeps=keeps)
                failpoint("hub.spawn.pushed")
            greeted, self._heard = True, self._hub.clock.monotonic()
            await self._store(answer, status)
            if answer.epoch == newest.epoch and answer.number > newest.number:
                async with self._hub.database.write() as session:
                    await begin_epoch_beyond(session, answer.number, at=self._hub.clock.now())
            if (answer.epoch, answer.number) == (newest.epoch, newest.number):
                # Changes that came meanwhile have left a hint, which ends the rest at once.
                return
        raise ProxyAwayError("it takes what it is sent and does not get to its number")

    async def _push(self, known: Position | None, newest: Position, *, keeps: bool) -> TableStatus:
        behind = newest.number - known.number if known is not None else 0
        if known is not None and known.epoch == newest.epoch and 0 < behind <= MOST_CHANGES:
            payloads = await self._changes(known.number, newest.number)
            if len(payloads) == behind:
                body = {
                    "epoch": newest.epoch,
                    "base": known.number,
                    "number": newest.number,
                    "changes": payloads,
                }
                answer, fits = await self._call("POST", "/control/v1/changes", encode(body))
                if fits:
                    return answer
                log.info("proxy_does_not_fit", proxy=self._peer.name, number=answer.number)
        table = await self._table()
        if known is None or known.epoch not in ("", newest.epoch) or keeps:
            table = replace(table, keep=await self._to_keep(table))
            await self._note_kept(table.keep)
        answer, _ = await self._call("PUT", "/control/v1/table", table.json())
        log.info(
            "table_pushed", proxy=self._peer.name, number=table.number, routes=len(table.routes)
        )
        return answer

    async def _changes(self, base: int, number: int) -> list[dict[str, Any]]:
        return await self._hub.database.fetch(_CHANGES, base=base, number=number)

    async def _table(self) -> RouteTable:
        async with self._hub.database.read() as session:
            newest = await position(session)
            statement = (
                select(Server, User.name)
                .join(User, col(User.id) == col(Server.user_id))
                .where(col(Server.route_number).is_not(None))
            )
            servers = (await session.exec(statement)).all()
            listening = select(Service).where(col(Service.url).is_not(None))
            services = (await session.exec(listening)).all()
            hubs = await hub_targets(session)
            elsewhere = await relays(session)
        if newest is None:
            raise ProxyAwayError("there is no table yet")
        return RouteTable(
            epoch=newest.epoch,
            number=newest.number,
            routes=desired_routes(self._hub.settings, servers, services, hubs, elsewhere),
        )

    async def _to_keep(self, table: RouteTable) -> list[str]:
        """Return the routes that this database may have forgotten (`routing.guard`)."""
        there = await self._proxys_table()
        async with self._hub.database.read() as session:
            return await routes_to_keep(session, self._hub, self._peer.name, table, there)

    async def _note_kept(self, kept: Sequence[str]) -> None:
        async with self._hub.database.write() as session:
            if await still_holds(session, self._hub, self._lease):
                await note_kept(session, self._peer.name, kept)

    async def _keeps_too_much(self) -> bool:
        table = await self._table()
        kept = await self._to_keep(table)
        async with self._hub.database.read() as session:
            status = await session.get(ProxyStatus, self._peer.name)
        return status is not None and status.kept != kept

    async def _proxys_table(self) -> RouteTable:
        reply = await self._request("GET", "/control/v1/table")
        try:
            return RouteTable.read(reply.content)
        except UnreadableError as error:
            raise ProxyAwayError("it answered something this hub cannot read") from error

    async def _ensure_counter(self) -> None:
        async with self._hub.database.write() as session:
            at = self._hub.clock.now()
            await ensure_counter(session, origin(self._hub.settings), at=at)

    async def _status(self) -> TableStatus:
        answer, _ = await self._call("GET", "/control/v1/status")
        return answer

    async def _call(
        self, method: str, path: str, body: bytes | None = None
    ) -> tuple[TableStatus, bool]:
        """Return the proxy's answer, and whether what was sent fitted its table."""
        reply = await self._request(method, path, body)
        try:
            return TableStatus.model_validate_json(reply.content), reply.status_code == 200
        except ValidationError as error:
            raise ProxyAwayError("it answered something this hub cannot read") from error

    async def _request(self, method: str, path: str, body: bytes | None = None) -> Answer:
        headers = service_headers(self._peer.key.get_secret_value())
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            reply = await self._client.request(method, path, content=body, headers=headers)
        except http_errors() as error:
            raise ProxyAwayError(f"it does not answer ({type(error).__name__})") from error
        if reply.status_code not in (200, 409):
            raise ProxyAwayError(f"it answered {reply.status_code} to {method} {path}")
        return reply

    async def _store(self, answer: TableStatus, status: ProxyStatus | None) -> None:
        """Note the acknowledgement, and call those servers ready that waited for it.

        After a power failure the proxy is asked again, and they are called ready again.

        Args:
            status: The row as it was read before the call.
        """
        hub, now = self._hub, self._hub.clock.now()
        if (
            status is not None
            and not status.away
            and (status.epoch, status.number) == (answer.epoch, answer.number)
            and status.seen_at is not None
            and now - status.seen_at < timedelta(seconds=SEEN_SECONDS)
        ):
            return
        async with hub.database.write(lasting=False) as session:
            if not await still_holds(session, hub, self._lease):
                return
            status = await self._row(session)
            status.epoch, status.number = answer.epoch, answer.number
            status.away, status.seen_at = False, now
            ready = await self._promote(session)
        if ready:
            await hub.wakeups.notify(*ready)

    async def _note_away(self) -> None:
        hub = self._hub
        status = await hub.database.fetch_one(_STATUS, key=self._peer.name)
        if status is not None and status.away:
            return
        async with hub.database.write() as session:
            if not await still_holds(session, hub, self._lease):
                return
            status = await self._row(session)
            status.away = True
            ready = await self._promote(session)
        await hub.wakeups.notify(*ready)

    async def _row(self, session: AsyncSession) -> ProxyStatus:
        """Return the proxy's row, to change it."""
        name = self._peer.name
        return await take_one(session, _TO_STORE, name=name) or add_new(
            session, ProxyStatus, name=name
        )

    async def _promote(self, session: AsyncSession) -> list[str]:
        names = [peer.name for peer in self._hub.settings.proxies]
        reached = await reached_number(session, names)
        rows = await take(session, _REACHED, reached=reached)
        for row in rows:
            promote(session, row, at=self._hub.clock.now())
        return [row.id for row in rows]

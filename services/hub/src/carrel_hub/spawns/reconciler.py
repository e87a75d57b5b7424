"""Drives servers from what is known to what is wanted, one idempotent step at a time.

Nothing is remembered here that matters: each step reads the row, does one thing, and writes what
came of it, provided the row still stands as it was read. A hub that is killed anywhere begins
again from the rows. Servers are driven side by side, each by one task at a time.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import col, not_, select

from carrel_hub.context import MISSED, ROUTES, SOMETHING, Hub
from carrel_hub.db.asking import by_key
from carrel_hub.db.models import Server
from carrel_hub.due import is_due
from carrel_hub.hosts.standing import is_heard, known_hosts
from carrel_hub.replicas import REPLICAS
from carrel_hub.replicas.leases import take_over
from carrel_hub.routing.reach import reached_now
from carrel_hub.spawns.actions import Actions
from carrel_hub.spawns.line import let_in
from carrel_hub.spawns.standing import waits
from carrel_hub.spawns.states import PENDING, State, Step, decide
from carrel_hub.spawns.transitions import lose_sight
from carrel_shared.tasks import TaskOwner

log = structlog.get_logger(__name__)

SCAN_SECONDS = 5.0
"""How often the rows are read when nothing hints at a change."""

BUSY_SCAN_SECONDS = 1.0
"""The same while some server is on its way."""

AT_ONCE = 64
"""How many servers are driven at the same time."""

_STUMBLE_SECONDS = 3.0

_SCAN_ON = {REPLICAS, MISSED}
_NO_SERVERS = {ROUTES, SOMETHING, *_SCAN_ON}

_SERVER = by_key(Server, "id")


class Reconciler:
    """Drives the servers that this process drives, and takes over those that nobody does.

    Args:
        hub: Settings, database, clock, hints, agents.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._actions = Actions(hub)
        self._started_at = hub.clock.now()
        self._driven: set[str] = set()
        self._again: set[str] = set()
        self._due: dict[str, datetime] = {}
        self._heard: list[str] | None = None
        self._line = False
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._ring: Callable[[], None] = lambda: None

    async def run(self) -> None:
        """Drive servers until cancelled."""
        tasks = TaskOwner()
        try:
            with self._hub.wakeups.watch() as watch:
                self._ring = watch.ring
                clock = self._hub.clock
                next_scan = clock.monotonic()
                while True:
                    now, moment = clock.now(), clock.monotonic()
                    ids = watch.take()
                    try:
                        if moment >= next_scan or not ids.isdisjoint(_SCAN_ON):
                            pending = await self._scan()
                            ids |= pending - self._due.keys()
                            wait = BUSY_SCAN_SECONDS if pending or self._line else SCAN_SECONDS
                            next_scan = moment + wait
                        if self._line:
                            admitted, waiting = await let_in(self._hub)
                            self._line = waiting > 0
                            ids.update(admitted)
                    except SQLAlchemyError as error:
                        log.error("scan_failed", reason=str(error)[:200])
                        next_scan = moment + BUSY_SCAN_SECONDS
                    ids |= {key for key, at in self._due.items() if is_due(at, now)}
                    for server_id in ids - _NO_SERVERS:
                        self._drive_soon(tasks, server_id)
                    await watch.wait(self._seconds_until(next_scan))
        finally:
            await tasks.close()

    def _seconds_until(self, next_scan: float) -> float:
        now = self._hub.clock.now()
        due = [(at - now).total_seconds() for at in self._due.values()]
        return max(min([next_scan - self._hub.clock.monotonic(), *due]), 0.005)

    def _drive_soon(self, tasks: TaskOwner, server_id: str) -> None:
        self._due.pop(server_id, None)
        if server_id in self._driven:
            self._again.add(server_id)
            return
        self._driven.add(server_id)
        tasks.start(self._drive(server_id), name=f"server-{server_id}")

    async def _drive(self, server_id: str) -> None:
        try:
            async with self._slots:
                while True:
                    self._again.discard(server_id)
                    done, at = await self.step(server_id)
                    if done and server_id not in self._again:
                        break
            if at is not None:
                self._due[server_id] = at
                self._ring()
        except (SQLAlchemyError, OSError) as error:
            log.error("server_step_failed", server_id=server_id, reason=str(error)[:200])
            self._stumble(server_id)
        except Exception:
            log.exception("server_step_broken", server_id=server_id)
            self._stumble(server_id)
        finally:
            self._driven.discard(server_id)
            self._again.discard(server_id)

    def _stumble(self, server_id: str) -> None:
        self._due[server_id] = self._hub.clock.now() + timedelta(seconds=_STUMBLE_SECONDS)

    async def step(self, server_id: str) -> tuple[bool, datetime | None]:
        """Take one step, and return whether to wait now, and until when at the latest."""
        hub = self._hub
        # Read first: a proxy that gets there meanwhile has made the row ready, too.
        reached = await reached_now(hub.database, [peer.name for peer in hub.settings.proxies])
        row = await hub.database.fetch_one(_SERVER, key=server_id)
        if row is None or row.state not in PENDING:
            return True, None
        if row.driver != hub.database.replica:
            return not await take_over(hub, [(row.id, row.driver)]), None
        if row.state == State.QUEUED and row.admitted_at is None:
            if not self._line:
                self._line = True
                self._ring()
            return True, None
        decision = decide(
            row,
            reachable=row.route_number is not None and row.route_number <= reached,
            start_timeout=timedelta(seconds=hub.settings.start_timeout_seconds),
            now=hub.clock.now(),
        )
        if decision.step is Step.WAIT:
            return True, decision.at
        with structlog.contextvars.bound_contextvars(request_id=row.request_id):
            log.debug("server_step", server_id=row.id, step=str(decision.step))
            await self._actions.take(row, decision.step)
        return False, None

    async def _scan(self) -> set[str]:
        """Return the servers that need work, after marking those on silent hosts unknown."""
        hub = self._hub
        now = hub.clock.now()
        silence = timedelta(seconds=hub.settings.agent_silence_seconds)
        async with hub.database.read() as session:
            pending = (
                await session.exec(
                    select(Server.id, Server.driver).where(
                        col(Server.state).in_(PENDING), not_(waits())
                    )
                )
            ).all()
            someone_waits = select(Server.id).where(waits()).limit(1)
            self._line = (await session.exec(someone_waits)).first() is not None
            hosts = await known_hosts(session, hub.settings)
            names = sorted(host.name for host in hosts)
            heard = sorted(host.name for host in hosts if is_heard(host, now=now, silence=silence))
            if now - self._started_at <= silence:
                # The hub was away itself: every agent has its time before it is called silent.
                heard = names
            lost: Sequence[str] = ()
            if heard != self._heard or len(heard) < len(names):
                statement = select(Server.id).where(
                    Server.state == State.READY, col(Server.host).not_in(heard)
                )
                lost = (await session.exec(statement)).all()
        self._heard = heard
        if lost:
            await self._lose(list(lost))
        return await take_over(hub, pending)

    async def _lose(self, ids: list[str]) -> None:
        hub = self._hub
        async with hub.database.write() as session:
            for server_id in ids:
                row = await session.get(Server, server_id)
                if row is not None:
                    reason = f"host {row.host} has not been heard for a while"
                    lose_sight(session, row, at=hub.clock.now(), reason=reason)
        await hub.wakeups.notify(*ids)

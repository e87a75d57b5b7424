"""Drives the processes of managed services from what is known to what is wanted.

Like the reconciler of servers: each step reads the row, does one thing, and writes what came of it
if the row still stands as it was read. An agent that is away changes nothing: unknown is not dead.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.context import Hub
from carrel_hub.db.models import ServiceRun
from carrel_hub.errors import AgentRefusedError, AgentUnreachableError
from carrel_hub.replicas import REPLICAS
from carrel_hub.replicas.leases import hold
from carrel_hub.services.launch import fingerprint, launch_spec
from carrel_hub.services.managed import SERVICES, host_of, want_services
from carrel_hub.services.runs import (
    ASK_SECONDS,
    LONGEST_PAUSE_SECONDS,
    STOP_ASK_SECONDS,
    RunState,
    RunStep,
    apply_report,
    begin,
    begin_end,
    decide,
    finish,
    postpone,
)
from carrel_shared.wire.servers import ExitReport, ServerReport, StopRequest

log = structlog.get_logger(__name__)

SCAN_SECONDS = 5.0
MOVE_SECONDS = 0.05
"""Until the next turn, when a service begins on another host."""

MOST_STEPS = 10
"""In one turn for one service; the rest comes in the next."""


class ServiceDriver:
    """The one driver of services, of one replica at a time.

    Args:
        hub: Settings, database, clock, hints, agents.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._entries = {entry.name: entry for entry in hub.settings.services if entry.command}
        self._fingerprints = {
            name: fingerprint(hub.settings, entry) for name, entry in self._entries.items()
        }

    async def run(self) -> None:
        """Drive services until cancelled."""
        with self._hub.wakeups.watch(SERVICES, REPLICAS) as watch:
            while True:
                try:
                    mine = await hold(self._hub, SERVICES)
                    soonest = await self.turn() if mine else SCAN_SECONDS
                except (SQLAlchemyError, OSError) as error:
                    log.error("services_not_driven", reason=str(error)[:200])
                    soonest = SCAN_SECONDS
                await watch.wait(soonest)

    async def turn(self) -> float:
        """Take what steps are due, and return in how many seconds to look again at the latest."""
        async with self._hub.database.read() as session:
            runs = (await session.exec(select(ServiceRun))).all()
        await asyncio.gather(*(self._drive(run) for run in runs))
        async with self._hub.database.read() as session:
            runs = (await session.exec(select(ServiceRun))).all()
        if any(self._is_to_move(run) for run in runs):
            async with self._hub.database.write() as session:
                await want_services(session, self._hub)
            return MOVE_SECONDS
        now = self._hub.clock.now()
        due = [(run.next_attempt_at - now).total_seconds() for run in runs if run.next_attempt_at]
        return max(min([SCAN_SECONDS, *(seconds for seconds in due if seconds > 0)]), 0.05)

    async def _drive(self, run: ServiceRun) -> None:
        for _ in range(MOST_STEPS):
            step = decide(run, now=self._hub.clock.now())
            if step is RunStep.WAIT or not self._is_mine(run):
                return
            await self._take(run, step)
            async with self._hub.database.read() as session:
                found = await session.get(ServiceRun, run.id)
            if found is None:
                return
            run = found

    def _is_to_move(self, run: ServiceRun) -> bool:
        """Whether it has ended where it was, and its settings name another host."""
        entry = self._entries.get(run.service)
        ended = run.state == RunState.STOPPED and not run.wanted
        return entry is not None and ended and run.host != host_of(self._hub.settings, entry)

    def _is_mine(self, run: ServiceRun) -> bool:
        """Whether this hub's settings are those that the row is of; another hub's may be newer."""
        return not run.wanted or run.wanted == self._fingerprints.get(run.service)

    async def _take(self, run: ServiceRun, step: RunStep) -> None:
        match step:
            case RunStep.START:
                async with self._same(run) as (session, row):
                    if row is not None:
                        begin(session, row, at=self._hub.clock.now())
            case RunStep.SEND:
                await self._send(run)
            case RunStep.END:
                async with self._same(run) as (session, row):
                    if row is not None:
                        begin_end(session, row, at=self._hub.clock.now())
            case RunStep.SEND_STOP:
                await self._send_stop(run)

    async def _send(self, run: ServiceRun) -> None:
        spec = launch_spec(self._hub.settings, self._entries[run.service], run)
        try:
            report = await self._hub.agents.start_server(run.host, spec)
        except AgentUnreachableError as error:
            log.warning("agent_unreachable", agent=run.host, service=run.service)
            await self._later(run, ASK_SECONDS, problem=error.message)
        except AgentRefusedError as error:
            await self._refused(run, error)
        else:
            await self._absorb(run, report, again_seconds=ASK_SECONDS)

    async def _refused(self, run: ServiceRun, error: AgentRefusedError) -> None:
        if error.agent_code in ("server_running", "generation_stale"):
            await self._catch_up(run)
            return
        log.error("service_refused", service=run.service, agent=run.host, reason=error.message)
        at = self._hub.clock.now()
        exit_ = ExitReport(cause="start_failed", summary=error.message, at=at)
        async with self._same(run) as (session, row):
            if row is not None:
                finish(session, row, exit_, at=at)
                postpone(session, row, LONGEST_PAUSE_SECONDS, at=at)

    async def _catch_up(self, run: ServiceRun) -> None:
        """The agent knows another generation: go on from the higher one, and end what runs."""
        try:
            report = await self._hub.agents.server(run.host, run.id)
        except (AgentUnreachableError, AgentRefusedError) as error:
            await self._later(run, ASK_SECONDS, problem=error.message)
            return
        async with self._same(run) as (session, row):
            if row is None:
                return
            if report is None:  # it forgot that one's end, and takes a newer one only
                row.generation += 1
                postpone(session, row, 1, at=self._hub.clock.now())
                return
            row.generation = max(row.generation, report.generation)
            row.state, row.next_attempt_at = RunState.STOPPING, None
            session.add(row)

    async def _send_stop(self, run: ServiceRun) -> None:
        request = StopRequest(generation=run.generation, reason="the hub's settings say so")
        try:
            report = await self._hub.agents.stop_server(run.host, run.id, request)
        except AgentUnreachableError as error:
            await self._later(run, ASK_SECONDS, problem=error.message)
        except AgentRefusedError:
            await self._catch_up(run)
        else:
            if report is not None:
                await self._absorb(run, report, again_seconds=STOP_ASK_SECONDS)
                return
            async with self._same(run) as (session, row):
                if row is not None:
                    finish(session, row, None, at=self._hub.clock.now())

    async def _absorb(self, run: ServiceRun, report: ServerReport, *, again_seconds: float) -> None:
        async with self._same(run) as (session, row):
            at = self._hub.clock.now()
            if row is not None and not apply_report(session, row, report, at=at):
                postpone(session, row, again_seconds, at=at)

    async def _later(self, run: ServiceRun, seconds: float, *, problem: str) -> None:
        log.info("service_waits", service=run.service, reason=problem)
        async with self._same(run) as (session, row):
            if row is not None:
                postpone(session, row, seconds, at=self._hub.clock.now())

    @asynccontextmanager
    async def _same(self, run: ServiceRun) -> AsyncIterator[tuple[AsyncSession, ServiceRun | None]]:
        """A transaction with the row as it is now; None when it is not what the step was for."""
        async with self._hub.database.write() as session:
            row = await session.get(ServiceRun, run.id)
            if row is not None and (row.generation, row.state) != (run.generation, run.state):
                row = None
            yield session, row

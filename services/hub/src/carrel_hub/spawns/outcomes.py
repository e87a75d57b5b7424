"""How the outcome of a step is written into a server's row.

Every write checks that the row still is of the generation and state that the step was chosen for,
and nobody else drives it; if not, the outcome is left to whoever changed the row.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.context import Hub
from carrel_hub.db.asking import take_one, to_change
from carrel_hub.db.models import Server
from carrel_hub.events import HUB_ACTOR, agent_actor
from carrel_hub.spawns.states import ASK_SECONDS
from carrel_hub.spawns.transitions import WAITING, apply_report, drop_route, fail_start
from carrel_shared.backoff import backoff_seconds
from carrel_shared.failpoints import failpoint
from carrel_shared.wire.servers import ServerReport

SERVER = to_change(Server, "id")
"""A server to change, by its id."""

LONGEST_WAIT_SECONDS = 5.0
"""The longest pause between two tries of a step."""


class Outcomes:
    """Writes outcomes."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    @asynccontextmanager
    async def same(self, row: Server) -> AsyncIterator[tuple[AsyncSession, Server | None]]:
        """A transaction with the row as it is now; None when it is not what the step was for."""
        async with self._hub.database.write() as session:
            current = await take_one(session, SERVER, id=row.id)
            if current is not None and (current.generation, current.state, current.fence) != (
                row.generation,
                row.state,
                row.fence,
            ):
                current = None
            yield session, current

    async def absorb(
        self, row: Server, report: ServerReport, *, again_seconds: float = ASK_SECONDS
    ) -> None:
        """Store what an agent answered about a server; if that is nothing new, ask again later."""
        host = row.host or ""
        routed = False
        changed = True
        async with self._hub.database.write() as session:
            current = await take_one(session, SERVER, id=row.id)
            if current is not None and current.generation >= row.generation:
                had_route = current.route_number is not None
                changed = await apply_report(
                    session,
                    current,
                    report,
                    self._hub.settings.places,
                    host=host,
                    at=self.now(),
                    actor=agent_actor(host),
                )
                routed = not had_route and current.route_number is not None
        if routed:
            failpoint("hub.spawn.routed")
        if not changed:
            await self.postpone(row, seconds=again_seconds)

    async def postpone(
        self, row: Server, *, problem: str = "", seconds: float | None = None
    ) -> None:
        """Try the step again later, and say why if something is wrong."""
        async with self.same(row) as (session, current):
            if current is None:
                return
            wait = seconds
            if wait is None:
                wait = backoff_seconds(current.attempts, longest=LONGEST_WAIT_SECONDS)
            current.attempts += 1
            current.next_attempt_at = self.now() + timedelta(seconds=wait)
            if problem:
                current.progress_message = f"{WAITING}{problem}"
            session.add(current)

    async def fail(self, row: Server, cause: str, summary: str) -> None:
        async with self.same(row) as (session, current):
            if current is not None:
                await drop_route(session, current, self._hub.settings.places)
                await fail_start(
                    session,
                    current,
                    at=self.now(),
                    cause=cause,
                    summary=summary,
                    actor=HUB_ACTOR,
                )

    def now(self) -> datetime:
        return self._hub.clock.now()

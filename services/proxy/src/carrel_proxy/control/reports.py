"""What the proxy tells the hub unasked: where its table stands, and which servers are in use."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import structlog

from carrel_proxy.access.hub import Hub
from carrel_proxy.control.table import Table
from carrel_proxy.errors import HubAwayError
from carrel_shared.backoff import backoff_seconds
from carrel_shared.clock import Clock

log = structlog.get_logger(__name__)

ACTIVITY_SECONDS = 30.0
GAP_SECONDS = 1.0
"""How long the hub is given to send the whole table by itself after it was told of a gap."""


TakeActivity = Callable[[], Awaitable[dict[str, float]]]


class Resync:
    """Asks the hub to push: once after a start, and whenever changes do not fit."""

    def __init__(self, hub: Hub, table: Table) -> None:
        self._hub = hub
        self._table = table
        self._gap = asyncio.Event()

    def note_gap(self) -> None:
        self._gap.set()

    def note_whole_table(self) -> None:
        self._gap.clear()

    async def run(self) -> None:
        """Ask, until cancelled, whenever there is reason to."""
        await self._ask(gap=False, still=lambda: True)
        while True:
            await self._gap.wait()
            await asyncio.sleep(GAP_SECONDS)
            await self._ask(gap=True, still=self._gap.is_set)
            self._gap.clear()

    async def _ask(self, *, gap: bool, still: Callable[[], bool]) -> None:
        attempt = 0
        while still():
            try:
                await self._hub.resync(self._table.status, gap=gap)
            except HubAwayError as error:
                if attempt == 0:
                    log.info("hub_away", reason=str(error))
                await asyncio.sleep(backoff_seconds(attempt, longest=10))
                attempt += 1
            else:
                log.info("resync_asked", gap=gap)
                return


class ActivityReporter:
    """Reports in batches when servers were used; what could not be reported goes with the next."""

    def __init__(self, hub: Hub, take: TakeActivity, clock: Clock) -> None:
        """`take` returns when each server was used since it was last asked, monotonic seconds."""
        self._hub = hub
        self._take = take
        self._clock = clock
        self._unreported: dict[str, datetime] = {}

    async def run(self) -> None:
        """Report until cancelled."""
        while True:
            await asyncio.sleep(ACTIVITY_SECONDS)
            await self.report()

    async def report(self) -> None:
        """Report once, if there is something to say."""
        found = await self._take()
        now, monotonic = self._clock.now(), self._clock.monotonic()
        for server_id, at in found.items():
            self._unreported[server_id] = now - timedelta(seconds=max(monotonic - at, 0))
        if not self._unreported:
            return
        batch = dict(self._unreported)
        try:
            await self._hub.report_activity(batch)
        except HubAwayError:
            return
        for server_id, reported in batch.items():
            if self._unreported.get(server_id) == reported:
                del self._unreported[server_id]

"""What every part of the hub is handed. Wiring only: no truth is kept here."""

import asyncio
from dataclasses import dataclass, field

from carrel_hub.db.engine import Database
from carrel_hub.settings import HubSettings
from carrel_shared.clock import Clock
from carrel_shared.tasks import TaskOwner


class Wakeups:
    """Hints within this process that rows changed. A lost hint costs a moment, never correctness.

    Whoever waits reads the rows first, then waits for the hint with a time limit, then reads again.
    """

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self.servers: set[str] = set()
        """Ids of servers whose rows changed, for the reconciler to take."""

    async def notify(self, *server_ids: str) -> None:
        """Say that these servers (or routes, with no id) changed. Call it after the commit."""
        async with self._changed:
            self.servers.update(server_ids)
            self._changed.notify_all()

    async def wait(self, seconds: float) -> None:
        """Return at the next hint, or after `seconds`."""
        try:
            async with asyncio.timeout(seconds), self._changed:
                await self._changed.wait()
        except TimeoutError:
            pass


@dataclass(frozen=True, slots=True)
class Hub:
    """The hub's parts; `request.app.state.hub` in every application of the process."""

    settings: HubSettings
    database: Database
    clock: Clock
    tasks: TaskOwner
    wakeups: Wakeups = field(default_factory=Wakeups)

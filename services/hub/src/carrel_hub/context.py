"""What every part of the hub is handed. Wiring only: no truth is kept here."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from carrel_hub.auth.activity import TokenUses
from carrel_hub.auth.known import Known
from carrel_hub.db.engine import Database
from carrel_hub.hosts.opened import Fleet
from carrel_hub.metrics.measures import Measures
from carrel_hub.settings import HubSettings
from carrel_hub.spawns.agents import AgentClients
from carrel_hub.spawns.standing import WaitingLine
from carrel_hub.users.last_used import LastUsed
from carrel_hub.users.streams import OpenStreams
from carrel_shared.clock import Clock
from carrel_shared.tasks import TaskOwner

ROUTES = "routes"
"""What to watch and notify, in place of a server's id, for the route log and the proxies."""

SOMETHING = "something"
"""In place of an id: something changed that has none. Whoever watches anything looks again."""

MISSED = "missed"
"""In place of an id: hints may have been lost. Whoever acts on hints reads everything again."""

_FOR_ALL = {SOMETHING, MISSED}


class Watch:
    """A place where hints arrive. Made before the rows are read, so none is missed in between."""

    def __init__(self, servers: frozenset[str] | None) -> None:
        self._changed = asyncio.Event()
        self._servers = None if servers is None else servers | _FOR_ALL
        self._hinted: set[str] = set()

    def hint(self, server_ids: tuple[str, ...]) -> None:
        if self._servers is None or not self._servers.isdisjoint(server_ids):
            self._hinted.update(server_ids)
            self._changed.set()

    def ring(self) -> None:
        """End the wait, or the next one."""
        self._changed.set()

    def take(self) -> set[str]:
        """Return what was hinted at since the last call: servers, or what is in place of one."""
        hinted, self._hinted = self._hinted, set()
        return hinted

    async def wait(self, seconds: float) -> None:
        """Return at the first hint since the last wait, or after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            pass
        self._changed.clear()


class Wakeups:
    """Hints that rows changed, within this process and to other replicas.

    A lost hint costs a moment, never correctness.

    Whoever waits opens a watch, reads the rows, waits for a hint with a time limit, reads again.
    """

    def __init__(self) -> None:
        self._watches: set[Watch] = set()
        self.relay: Callable[[tuple[str, ...]], None] = lambda _: None
        """Passes hints on to other replicas, where there can be any."""
        self.serving = False
        """Every listener of this process accepts: proxies may be led here."""
        self.stopping = False
        """The process is about to end: streams finish, and nobody waits any longer."""

    @contextmanager
    def watch(self, *server_ids: str) -> Iterator[Watch]:
        """Watch these servers; with no id, everything."""
        watch = Watch(frozenset(server_ids) if server_ids else None)
        if self.stopping:
            watch.ring()
        self._watches.add(watch)
        try:
            yield watch
        finally:
            self._watches.discard(watch)

    async def notify(self, *server_ids: str) -> None:
        """Say that these servers (or something else, with no id) changed. Call after the commit."""
        hints = server_ids or (SOMETHING,)
        self.hear(hints)
        self.relay(hints)

    async def wait(self, seconds: float) -> None:
        """Return at the next hint of any kind, or after `seconds`."""
        with self.watch() as watch:
            await watch.wait(seconds)

    def stop(self) -> None:
        """Wake everybody for the last time."""
        self.stopping = True
        self.hear((SOMETHING,))

    def hear(self, server_ids: tuple[str, ...]) -> None:
        """Wake those of this process who wait for these servers."""
        for watch in self._watches:
            watch.hint(server_ids)


@dataclass(frozen=True, slots=True)
class Hub:
    """The hub's parts; `request.app.state.hub` in every application of the process."""

    settings: HubSettings
    database: Database
    clock: Clock
    tasks: TaskOwner
    wakeups: Wakeups = field(default_factory=Wakeups)
    agents: AgentClients = field(default_factory=AgentClients)
    fleet: Fleet = field(default_factory=Fleet)
    line: WaitingLine = field(default_factory=WaitingLine)
    measures: Measures = field(default_factory=Measures)
    token_uses: TokenUses = field(default_factory=TokenUses)
    last_used: LastUsed = field(default_factory=LastUsed)
    streams: OpenStreams = field(default_factory=OpenStreams)
    known: Known[Any] = field(init=False)
    """Whose tokens and sessions are, for `auth.subjects`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "known", Known(self.database, self.clock))
        self.database.on_events(self.measures.happened)

"""Several ASGI listeners in one process, with signals that are ours.

uvicorn's `Server` owns one listener and, in `serve`, the process's signals. A service here has
more than one listener, so each gets a `Server` that leaves signals alone, and one place stops all.
"""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from carrel_shared.draining import Draining

LOOK_SECONDS = 0.05
"""How often a process that drains looks whether everybody has left."""
QUIET_SECONDS = 1.0
"""For how long nobody must have been connected: who is just connecting is not seen yet."""


@dataclass(frozen=True, slots=True)
class Listener:
    """One application on one or more bound sockets.

    Attributes:
        options: Further keyword arguments of `uvicorn.Config`.
        drains: Whoever asks here is told when the process is ending.
    """

    app: Any
    sockets: Sequence[socket.socket]
    options: dict[str, Any] = field(default_factory=dict)
    drains: bool = False


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._ended = asyncio.Event()

    def end(self) -> None:
        """Begin the end; called again, cut what still runs."""
        self.force_exit = self.should_exit
        self.should_exit = True
        self._ended.set()

    async def main_loop(self) -> None:
        """Wait for the end. uvicorn's own loop looks ten times a second whether it has come."""
        if self.config.date_header:
            await super().main_loop()
            return
        await self.on_tick(0)
        await self._ended.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave the signals to `serve`."""
        yield


class _Ending:
    """The steps of an end: to drain, to let running requests finish, to cut them."""

    def __init__(
        self, servers: Sequence[_Server], apps: Sequence[Draining | None], drain_seconds: float
    ) -> None:
        self._servers = servers
        self._draining = [
            (server, app) for server, app in zip(servers, apps, strict=True) if app is not None
        ]
        self._drain_seconds = drain_seconds if self._draining else 0.0
        self._begun = False

    def go_on(self) -> None:
        for _, app in self._draining:
            app.begin()
        if self._drain_seconds and not self._begun:
            now = asyncio.get_running_loop().time()
            self._end_when_left(now + self._drain_seconds, now, self._requests())
        else:
            self._end()
        self._begun = True

    def _end_when_left(self, latest: float, quiet_since: float, requests: int) -> None:
        loop = asyncio.get_running_loop()
        if any(server.should_exit for server in self._servers):
            return
        connected = any(server.server_state.connections for server, _ in self._draining)
        if connected or self._requests() != requests:
            quiet_since, requests = loop.time(), self._requests()
        if loop.time() < min(latest, quiet_since + QUIET_SECONDS):
            loop.call_later(LOOK_SECONDS, self._end_when_left, latest, quiet_since, requests)
        else:
            self._end()

    def _requests(self) -> int:
        return sum(server.server_state.total_requests for server, _ in self._draining)

    def _end(self) -> None:
        for server in self._servers:
            server.end()


async def serve(
    listeners: Sequence[Listener],
    *,
    on_started: Callable[[], None] = lambda: None,
    on_stopping: Callable[[], None] = lambda: None,
    graceful_seconds: int = 5,
    drain_seconds: float = 0.0,
) -> None:
    """Serve until SIGTERM or SIGINT, then let running requests finish; a second signal cuts them.

    With time to drain, that comes first, and a second signal ends it.

    Applications' lifespans are not run: open what they need around this call.

    Args:
        on_started: Called once every listener accepts.
        on_stopping: Called at the first signal, so that endless responses can end by themselves.
        graceful_seconds: How long running requests are given.
        drain_seconds: How long everything goes on after the first signal, unless nobody is
            connected any more to a listener that drains (`carrel_shared.draining`).
    """
    serving = Serving(listeners, graceful_seconds=graceful_seconds, drain_seconds=drain_seconds)

    def stop() -> None:
        on_stopping()
        serving.end()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        await serving.run(on_started)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


class Serving:
    """Several listeners that begin and end together."""

    def __init__(
        self,
        listeners: Sequence[Listener],
        *,
        graceful_seconds: int = 5,
        drain_seconds: float = 0.0,
    ) -> None:
        self._listeners = listeners
        draining = [Draining(listener.app) if listener.drains else None for listener in listeners]
        self._servers = [
            _server(listener, app or listener.app, graceful_seconds)
            for listener, app in zip(listeners, draining, strict=True)
        ]
        self._ending = _Ending(self._servers, draining, drain_seconds)

    def end(self) -> None:
        """Drain, then let running requests finish; called again, go on to what comes next."""
        self._ending.go_on()

    async def run(self, on_started: Callable[[], None] = lambda: None) -> None:
        """Serve until ended.

        Args:
            on_started: Called once every listener accepts.
        """
        servers = self._servers
        async with asyncio.TaskGroup() as group:
            for server, listener in zip(servers, self._listeners, strict=True):
                group.create_task(server.serve(sockets=list(listener.sockets)))
            while not all(  # noqa: ASYNC110 - uvicorn offers a flag and no event
                server.started or server.should_exit for server in servers
            ):
                await asyncio.sleep(0.01)
            on_started()


def _server(listener: Listener, app: Any, graceful_seconds: int) -> _Server:
    return _Server(
        uvicorn.Config(
            app,
            **{
                "lifespan": "off",
                "log_config": None,
                "access_log": False,
                "server_header": False,
                "date_header": False,
                "proxy_headers": False,
                "ws": "none",
                "http": "httptools",
                "timeout_graceful_shutdown": graceful_seconds,
                **listener.options,
            },
        )
    )

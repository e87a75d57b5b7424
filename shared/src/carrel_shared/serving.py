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


@dataclass(frozen=True, slots=True)
class Listener:
    """One application on one or more bound sockets.

    Attributes:
        options: Further keyword arguments of `uvicorn.Config`.
    """

    app: Any
    sockets: Sequence[socket.socket]
    options: dict[str, Any] = field(default_factory=dict)


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


async def serve(
    listeners: Sequence[Listener],
    *,
    on_started: Callable[[], None] = lambda: None,
    on_stopping: Callable[[], None] = lambda: None,
    graceful_seconds: int = 5,
) -> None:
    """Serve until SIGTERM or SIGINT, then let running requests finish; a second signal cuts them.

    Applications' lifespans are not run: open what they need around this call.

    Args:
        on_started: Called once every listener accepts.
        on_stopping: Called at the first signal, so that endless responses can end by themselves.
        graceful_seconds: How long running requests are given.
    """
    serving = Serving(listeners, graceful_seconds=graceful_seconds)

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

    def __init__(self, listeners: Sequence[Listener], *, graceful_seconds: int = 5) -> None:
        self._listeners = listeners
        self._servers = [_server(listener, graceful_seconds) for listener in listeners]

    def end(self) -> None:
        """Let running requests finish; called again, cut them."""
        for server in self._servers:
            server.end()

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


def _server(listener: Listener, graceful_seconds: int) -> _Server:
    return _Server(
        uvicorn.Config(
            listener.app,
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

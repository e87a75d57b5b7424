"""One worker: takes what is in force, accepts connections, follows its parent's orders.

    python -m carrel_proxy.process.worker carrel SETTINGS CHANNEL
    python -m carrel_proxy.process.worker chp [OPTION...] CHANNEL

SETTINGS is a descriptor with the text of the settings file, or `-`. CHANNEL leads to the parent.
"""

import asyncio
import gc
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import uvloop

from carrel_proxy.engine.edge import Edge
from carrel_proxy.process.crew import Crew, CrewError
from carrel_proxy.process.listening import somebody_waits
from carrel_proxy.tls import TlsError
from carrel_shared.deferred import light_imports
from carrel_shared.lines import LAST_LINES_SECONDS, LineWriter
from carrel_shared.serving import Listener, Serving
from carrel_shared.settings import SettingsError
from carrel_shared.tasks import TaskOwner

FAREWELL_SECONDS = 1.0
"""How long a leader that ends waits for what the others have counted."""
ORPHAN_SECONDS = 1.5
"""How long requests may go on when the parent was killed. The next one may be here already."""
QUEUE_SECONDS = 0.5
"""How long those who have connected already are waited for."""


class Service(Protocol):
    """What a worker runs: Carrel's proxy, or the one in configurable-http-proxy's place."""

    edge: Edge

    def restore(self, kept: Mapping[str, str]) -> None:
        """Take up what the leader before this one has left. Where there is none, start afresh."""
        ...

    def snapshot(self) -> bytes:
        """Return what is in force, for another worker."""
        ...

    def take(self, snapshot: bytes) -> None:
        """Take what is in force from the leader."""
        ...

    async def accept(self, sockets: Sequence[socket.socket]) -> None:
        """Accept connections on the public sockets."""
        ...

    def lead(self) -> None:
        """Begin to lead: write down what changes, speak with others."""
        ...

    async def unlead(self) -> None:
        """Lead no longer; what is to be kept is written down."""
        ...

    def disown(self) -> None:
        """Write nothing down any more: another proxy may have taken this one's place."""
        ...

    def listeners(self, sockets: dict[str, list[socket.socket]]) -> list[Listener]:
        """Return what a leader serves besides, given the sockets for each role."""
        ...

    async def close(self) -> None:
        """Tell the leader what is still to be told, and end all work."""
        ...


class Worker:
    """The life of one worker."""

    def __init__(self, crew: Crew, service: Service) -> None:
        self._crew = crew
        self._service = service
        self._orders: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._now = asyncio.Event()
        self._orphaned = False
        self._drain_seconds = 0.0
        self._descriptors: list[int] = []
        self._public: list[int] = []
        self._sockets: dict[str, list[socket.socket]] = {}
        self._tasks = TaskOwner()
        self._serving: Serving | None = None
        self._served: asyncio.Task[None] | None = None
        crew.on_order = self._ordered
        crew.on_orphaned = self._orphan
        crew.snapshot = service.snapshot
        crew.take = service.take

    async def run(self, channel: int) -> None:
        """Live until the parent says otherwise, or is gone."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._ordered, {"do": "drain"})
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
            loop.add_signal_handler(number, lambda: None)  # the parent's; a group gets them all
        await loop.create_unix_connection(lambda: self._crew, sock=socket.socket(fileno=channel))
        begin = await self._orders.get()
        if begin["do"] == "begin":
            await self._begin(begin)
            await self._follow_orders()
        await self._end()

    async def _begin(self, begin: dict[str, Any]) -> None:
        self._drain_seconds = begin["drain_seconds"]
        self._descriptors = list(begin["listeners"].values())
        for name, descriptor in begin["listeners"].items():
            role = name.partition(" ")[0]
            if role == "public":
                self._public.append(descriptor)
            listening = socket.socket(fileno=os.dup(descriptor))
            listening.setblocking(False)
            self._sockets.setdefault(role, []).append(listening)
        if begin["lead"]:
            self._service.restore(begin["kept"])
        else:
            await self._crew.join()
        self._crew.settle()
        await self._service.accept(self._sockets.pop("public"))
        gc.freeze()  # what is there now stays: no collection need look at it
        if begin["lead"]:
            await self._lead()
        self._crew.say("ready")

    def _ordered(self, message: dict[str, Any]) -> None:
        if message["do"] == "end":
            self._now.set()
        self._orders.put_nowait(message)

    def _orphan(self) -> None:
        """The parent was killed: make room for the next one at once."""
        self._orphaned = True
        self._service.disown()
        self._close_listeners()
        self._ordered({"do": "drain", "seconds": ORPHAN_SECONDS})

    async def _follow_orders(self) -> None:
        while True:
            order = await self._orders.get()
            if order["do"] == "lead":
                await self._lead()
            elif order["do"] == "yield":
                await self._yield()
                self._crew.say("yielded")
            elif order["do"] == "retire":
                self._tasks.start(self._retire(order["seconds"]), name="retire")
            else:
                await self._drain(order.get("seconds", self._drain_seconds))
                return

    # --- leading ---

    async def _lead(self) -> None:
        if self._served is not None:
            return
        self._service.lead()
        copies = {role: [each.dup() for each in sockets] for role, sockets in self._sockets.items()}
        self._serving = Serving(self._service.listeners(copies), graceful_seconds=1)
        started = asyncio.Event()
        self._served = self._tasks.start(self._serving.run(started.set), name="control")
        await started.wait()
        self._crew.say("leading")

    async def _yield(self) -> None:
        if self._serving is None or self._served is None:
            return
        self._serving.end()
        await self._served
        self._serving = self._served = None
        await self._service.unlead()

    # --- the end ---

    async def _retire(self, seconds: float) -> None:
        """Accept no more; what is open may go on for so long."""
        await self._let_in_who_waits()
        self._close_listeners()
        edge = self._service.edge
        edge.stop_listening()
        await edge.wait_until_idle(seconds)
        self._ordered({"do": "drain", "seconds": 0})

    async def _drain(self, seconds: float) -> None:
        """Accept no more, let requests finish, and leave nothing open."""
        if not self._orphaned:
            await self._let_in_who_waits()
        self._close_listeners()
        edge = self._service.edge
        edge.stop_listening()
        if self._serving is not None:
            self._serving.end()
        drained = self._tasks.start(edge.drain(seconds), name="drain")
        hurried = self._tasks.start(self._wait_for_hurry(), name="hurry")
        await asyncio.wait((drained, hurried), return_when=asyncio.FIRST_COMPLETED)
        if not drained.done():
            drained.cancel()
            await edge.drain(0)

    async def _wait_for_hurry(self) -> None:
        await self._now.wait()

    async def _let_in_who_waits(self) -> None:
        """Wait until those who have connected are accepted; the loop does that by itself."""
        loop = asyncio.get_running_loop()
        latest = loop.time() + QUEUE_SECONDS
        while (  # noqa: ASYNC110 - the kernel has no event for it
            any(map(somebody_waits, self._public)) and loop.time() < latest
        ):
            await asyncio.sleep(0.005)

    def _close_listeners(self) -> None:
        self._service.edge.close_listeners()
        for sockets in self._sockets.values():
            for each in sockets:
                each.close()
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = self._public = []
        self._sockets = {}

    async def _end(self) -> None:
        if self._served is not None and not self._orphaned:
            await self._crew.alone(FAREWELL_SECONDS)
            await self._yield()
        await self._service.close()
        await self._crew.close()
        await self._tasks.close()


def main(arguments: Sequence[str]) -> int:
    """Run a worker to its end; return the exit status."""
    kind, *given, channel = arguments
    lines = LineWriter(sys.stderr.fileno())
    try:
        uvloop.run(_run(_service(kind, given, lines), int(channel)))
    except (SettingsError, TlsError, CrewError) as error:
        sys.stderr.write(f"carrel-proxy: {error}\n")
        return os.EX_CONFIG
    finally:
        lines.settle(LAST_LINES_SECONDS)
    return 0


def _service(kind: str, given: Sequence[str], lines: LineWriter) -> Callable[[Crew], Service]:
    with light_imports():
        if kind == "chp":
            from carrel_proxy.chp.program import worker
        else:
            from carrel_proxy.app import worker as carrel_worker
    return worker(given, lines) if kind == "chp" else carrel_worker(given[0], lines)


async def _run(make: Callable[[Crew], Service], channel: int) -> None:
    crew = Crew()
    await Worker(crew, make(crew)).run(channel)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

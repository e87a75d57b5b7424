"""A proxy whose table is pushed to it over the control API, as one of several workers."""

import socket
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import structlog

from carrel_proxy.control.api import create_control_app
from carrel_proxy.control.metrics import MetricsPage, page
from carrel_proxy.control.saved import SavedFiles, SavedTable
from carrel_proxy.control.shared import DRAINING, Shared
from carrel_proxy.control.table import Table
from carrel_proxy.engine.access_log import AccessLog, open_access_log
from carrel_proxy.engine.deadlines import Deadlines
from carrel_proxy.engine.edge import Edge
from carrel_proxy.process.crew import Crew
from carrel_proxy.settings import ProxySettings
from carrel_shared.clock import Clock
from carrel_shared.lines import LineWriter
from carrel_shared.service_auth import ASGIApp
from carrel_shared.serving import Listener
from carrel_shared.tasks import TaskOwner

NOTHING: Mapping[str, str] = MappingProxyType({})

log = structlog.get_logger(__name__)


class PushedProxy:
    """What an edge and a relay have in common; each sets these in its `__init__`.

    Attributes:
        caller: Who may push.
        saved: What survives a restart; the leader alone writes it.
    """

    caller: str
    settings: ProxySettings
    clock: Clock
    tasks: TaskOwner
    deadlines: Deadlines
    edge: Edge
    table: Table
    shared: Shared
    crew: Crew
    saved: SavedFiles
    saved_table: SavedTable

    def __init__(self) -> None:
        self._leading = TaskOwner()
        self._restored = False

    @property
    def control_app(self) -> ASGIApp:
        key = self.settings.control_key.get_secret_value()
        return create_control_app(
            self.table, key, self.edge, self.saved, self.shared, caller=self.caller
        )

    async def metrics_text(self) -> str:
        """Return the page for Prometheus."""
        return page(await self.shared.totals(), self.table.status)

    # --- alone, as tests run it ---

    async def stop(self) -> None:
        """Let running requests finish, say what is still to be said, save what is to be kept."""
        await self.edge.drain(self.settings.drain_seconds)
        await self.unlead()
        await self.close()

    # --- as one of several workers: `carrel_proxy.process.worker.Service` ---

    def restore(self, kept: Mapping[str, str] = NOTHING) -> None:
        """Take up what was saved, and save from now on."""
        self.edge.send_away(draining=DRAINING in kept)
        self.saved_table.restore()
        self._restored = True

    def snapshot(self) -> bytes:
        return self.shared.snapshot()

    def take(self, snapshot: bytes) -> None:
        self.shared.take(snapshot)

    async def accept(self, sockets: Sequence[socket.socket]) -> None:
        await self.open(sockets)
        self.tasks.start(self.edge.tick(), name="tick")
        settings = self.settings
        log.info("proxy_listening", mode=settings.mode, bind=settings.bind, tls=settings.is_tls)

    async def open(self, sockets: Sequence[socket.socket]) -> None:
        """Accept connections on these."""
        raise NotImplementedError

    def lead(self) -> None:
        self.shared.lead()
        if not self._restored:
            self.saved.take_over()
        self._leading = TaskOwner()
        self._leading.start(self.saved.run(), name="save")

    async def unlead(self) -> None:
        await self.saved.flush()
        await self._leading.close()
        self.disown()

    def disown(self) -> None:
        self.saved.give_up()
        self._restored = False

    def listeners(self, sockets: dict[str, list[socket.socket]]) -> list[Listener]:
        found = [Listener(self.control_app, sockets["control"])]
        if metrics := sockets.get("metrics"):
            key = self.settings.metrics_key
            shown = key.get_secret_value() if key is not None else None
            found.append(Listener(MetricsPage(self.metrics_text, shown), metrics))
        return found

    async def close(self) -> None:
        if not self.crew.leads:
            self.shared.say_farewell()
        await self._leading.close()
        await self.tasks.close()
        log.info("proxy_stopped")


def access_log_of(
    settings: ProxySettings, lines: LineWriter | None, clock: Clock
) -> AccessLog | None:
    """Return the access log that is set; None if there is none to keep."""
    return open_access_log(
        settings.access_log,
        lines,
        clock,
        as_json=settings.log_json,
        rate=settings.access_log_rate,
    )

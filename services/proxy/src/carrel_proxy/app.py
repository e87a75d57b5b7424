"""Puts the proxy together and runs it."""

import asyncio
import contextlib
import gc
import socket
import ssl

import structlog

from carrel_proxy.access.guard import Guard
from carrel_proxy.access.hub import Hub
from carrel_proxy.access.signin import SignIn
from carrel_proxy.access.verdicts import Verdicts
from carrel_proxy.control.api import create_control_app
from carrel_proxy.control.counted import Counted
from carrel_proxy.control.metrics import (
    MetricsPage,
    page,
)
from carrel_proxy.control.reports import ActivityReporter, Resync
from carrel_proxy.control.saved import SavedFiles, SavedTable, SavedVerdicts
from carrel_proxy.control.table import Table
from carrel_proxy.core.access import freshness_of
from carrel_proxy.engine.access_log import open_access_log
from carrel_proxy.engine.counters import Counters
from carrel_proxy.engine.deadlines import Deadlines
from carrel_proxy.engine.dispatch import Dispatcher
from carrel_proxy.engine.edge import Edge, limits_of
from carrel_proxy.engine.hub_watch import HubWatch
from carrel_proxy.engine.routes import RouteOptions
from carrel_proxy.mutual_tls import MutualTls, towards_relays
from carrel_proxy.relay.relay import Relay
from carrel_proxy.settings import ProxySettings
from carrel_shared.addresses import TcpAddress, parse_address
from carrel_shared.clock import Clock, SystemClock
from carrel_shared.lines import LineWriter
from carrel_shared.service_auth import ASGIApp
from carrel_shared.serving import Listener, serve
from carrel_shared.settings import SettingsError
from carrel_shared.tasks import TaskOwner
from carrel_shared.wire.routes import Route

log = structlog.get_logger(__name__)

LAST_REPORT_SECONDS = 1.0
"""How long the end waits for the hub to take the last report."""


class Proxy:
    """All parts of one proxy, wired. Made inside the event loop that runs it."""

    def __init__(
        self,
        settings: ProxySettings,
        *,
        clock: Clock | None = None,
        hub: Hub | None = None,
        lines: LineWriter | None = None,
    ) -> None:
        self.settings = settings
        self.clock = clock or SystemClock()
        self.hub = hub or hub_of(settings)
        self.tasks = TaskOwner()
        self.counters = Counters()
        self.deadlines = Deadlines(self.clock)
        freshness = freshness_of(settings.stale_sessions_seconds)
        self.verdicts = Verdicts(self.clock, freshness, settings.max_verdicts)
        self.guard = Guard(self.verdicts, self.hub, self.tasks, self.clock, self.counters)
        self.sign_in = SignIn(self.hub, self.verdicts, self.clock, self.tasks)
        self.dispatcher = Dispatcher(settings.base_url, self.guard, self.sign_in, self.tasks)
        self.edge = Edge(
            self.dispatcher,
            limits_of(settings),
            deadlines=self.deadlines,
            tasks=self.tasks,
            default_host=settings.bind,
            trusted_peers=settings.trusted_peers,
            counters=self.counters,
            access_log=open_access_log(
                settings.access_log,
                lines,
                self.clock,
                as_json=settings.log_json,
                rate=settings.access_log_rate,
            ),
        )
        self.hub_watch = HubWatch(
            self.edge, self.tasks, settings.base_url, f"{settings.hub_prefix}health"
        )
        self.guard.open_grants = self.edge.grants
        self.guard.cut = self.edge.cut
        options = RouteOptions(
            deadlines=self.deadlines,
            base_url=settings.base_url,
            hub_prefix=settings.hub_prefix,
            connect_seconds=settings.connect_seconds,
            upstream_idle_seconds=settings.upstream_idle_seconds,
            vanished_seconds=settings.vanished_seconds,
            most_connections=settings.max_connections_per_route,
            counters=self.counters,
            fleet=MutualTls(settings.fleet, towards_relays) if settings.fleet else None,
        )
        self.table = Table(self.dispatcher, self.guard, options, default_route(settings))
        self._saved_table = SavedTable(settings.state_dir, self.table)
        self._saved_verdicts = SavedVerdicts(settings.state_dir, self.verdicts)
        self.saved = SavedFiles(self._saved_table, self._saved_verdicts)
        self.counted = Counted(self.edge, self.clock, self.verdicts)
        self._resync = Resync(self.hub, self.table)
        self._activity = ActivityReporter(self.hub, self.table, self.clock)

    @property
    def control_app(self) -> ASGIApp:
        key = self.settings.control_key.get_secret_value()
        return create_control_app(self.table, key, self.edge, self.saved, self.counted)

    async def metrics_text(self) -> str:
        """Return the page for Prometheus."""
        return page(self.counted.totals(), self.table.status)

    async def start(self, sockets: list[socket.socket], tls: ssl.SSLContext | None = None) -> None:
        """Take up what was saved, then accept connections on the public sockets."""
        self.restore()
        self.table.on_whole = self._resync.note_whole_table
        self.table.on_gap = self._resync.note_gap
        self.deadlines.each_tick += [self.guard.sweep, self.hub_watch.look]
        await self.edge.listen(sockets, tls)
        self.tasks.start(self.saved.run(), name="save")
        self.tasks.start(self.edge.tick(), name="tick")
        self.tasks.start(self._resync.run(), name="resync")
        self.tasks.start(self._activity.run(), name="activity")

    def restore(self) -> None:
        """Take up what was saved, and save from now on."""
        self._saved_table.restore()
        self._saved_verdicts.restore()

    async def stop(self) -> None:
        """Let running requests finish, say what is still to be said, save what is to be kept."""
        await self.edge.drain(self.settings.drain_seconds)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_REPORT_SECONDS):
                await self._activity.report()
        await self.saved.flush()
        await self.tasks.close()
        await self.hub.close()


def hub_of(settings: ProxySettings) -> Hub:
    """Return the hub that an edge belongs to."""
    if settings.hub_url is None or settings.hub_key is None:
        raise SettingsError("hub_url and hub_key are not set")
    return Hub(settings.hub_url, settings.hub_key.get_secret_value(), settings.name)


def default_route(settings: ProxySettings) -> Route | None:
    """Return the route that is in force until the hub has said what is."""
    if settings.default_target is None:
        return None
    address = parse_address(settings.default_target)
    target = f"http://{address}" if isinstance(address, TcpAddress) else str(address)
    return Route(prefix=settings.base_url, targets=[target])


async def run(
    settings: ProxySettings,
    public: list[socket.socket],
    control: list[socket.socket],
    tls: ssl.SSLContext | None,
    metrics: list[socket.socket],
    lines: LineWriter,
) -> None:
    """Run a proxy on bound sockets until a signal ends it."""
    relays = settings.mode == "relay"
    proxy = Relay(settings, lines=lines) if relays else Proxy(settings, lines=lines)
    await proxy.start(public, tls)
    listeners = [Listener(proxy.control_app, control)]
    if metrics:
        key = settings.metrics_key.get_secret_value() if settings.metrics_key else None
        listeners.append(Listener(MetricsPage(proxy.metrics_text, key), metrics))
    gc.freeze()  # what is there now stays: no collection need look at it
    log.info("proxy_listening", mode=settings.mode, bind=settings.bind, tls=settings.is_tls)
    try:
        await serve(
            listeners,
            graceful_seconds=1,
            on_stopping=proxy.edge.stop_listening,
        )
    finally:
        await proxy.stop()
        log.info("proxy_stopped")

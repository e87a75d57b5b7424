"""Puts the proxy together and runs it."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence

from carrel_proxy.access.guard import Guard
from carrel_proxy.access.hub import Hub
from carrel_proxy.access.signin import SignIn
from carrel_proxy.access.verdicts import Verdicts
from carrel_proxy.control.counted import Counted
from carrel_proxy.control.pushed import NOTHING, PushedProxy, access_log_of
from carrel_proxy.control.reports import ActivityReporter, Resync
from carrel_proxy.control.saved import SavedFiles, SavedTable, SavedVerdicts
from carrel_proxy.control.shared import Shared
from carrel_proxy.control.table import Table
from carrel_proxy.core.access import freshness_of
from carrel_proxy.edge_certificate import EdgeCertificate
from carrel_proxy.engine.access_log import EVENTS_A_SECOND
from carrel_proxy.engine.counters import Counters
from carrel_proxy.engine.deadlines import Deadlines
from carrel_proxy.engine.dispatch import Dispatcher
from carrel_proxy.engine.edge import Edge, limits_of
from carrel_proxy.engine.hub_watch import HubWatch
from carrel_proxy.engine.kept import Kept
from carrel_proxy.engine.routes import RouteOptions
from carrel_proxy.mutual_tls import MutualTls, towards_relays
from carrel_proxy.process.crew import Crew
from carrel_proxy.relay.relay import Relay
from carrel_proxy.settings import ProxySettings
from carrel_proxy.starting import worker_settings
from carrel_proxy.tls import public_context
from carrel_shared.addresses import TcpAddress, parse_address
from carrel_shared.clock import Clock, SystemClock
from carrel_shared.lines import LineWriter
from carrel_shared.logging import configure_logging
from carrel_shared.settings import SettingsError
from carrel_shared.tasks import TaskOwner
from carrel_shared.wire.routes import Route

LAST_REPORT_SECONDS = 1.0
"""How long the end waits for the hub to take the last report."""


class Proxy(PushedProxy):
    """All parts of one proxy, wired. Made inside the event loop that runs it."""

    caller = "hub"

    def __init__(
        self,
        settings: ProxySettings,
        *,
        clock: Clock | None = None,
        hub: Hub | None = None,
        lines: LineWriter | None = None,
        crew: Crew | None = None,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.crew = crew or Crew()
        self.tls: ssl.SSLContext | None = None
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
        kept = Kept(settings.upstream_kept_seconds)
        self.edge = Edge(
            self.dispatcher,
            limits_of(settings),
            deadlines=self.deadlines,
            tasks=self.tasks,
            default_host=settings.bind,
            trusted_peers=settings.trusted_peers,
            counters=self.counters,
            access_log=access_log_of(settings, lines, self.clock),
            kept=kept,
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
            kept=kept,
            vanished_seconds=settings.vanished_seconds,
            most_connections=settings.max_connections_per_route,
            counters=self.counters,
            fleet=(
                MutualTls(settings.fleet, towards_relays, may_come_later=True)
                if settings.fleet
                else None
            ),
        )
        self.table = Table(self.dispatcher, self.guard, options, default_route(settings))
        self.saved_table = SavedTable(settings.state_dir, self.table)
        self._saved_verdicts = SavedVerdicts(settings.state_dir, self.verdicts)
        # In this order: a table that is saved has its revocations applied to the saved verdicts.
        self.saved = SavedFiles(self._saved_verdicts, self.saved_table)
        self.counted = Counted(self.edge, self.clock, self.verdicts)
        self._resync = Resync(self.hub, self.table)
        self.shared = Shared(
            self.crew, self.edge, self.table, self.guard, self.counted, self.verdicts
        )
        self._activity = ActivityReporter(self.hub, self.shared.take_activity, self.clock)

    # --- alone, as tests run it ---

    async def start(
        self, sockets: Sequence[socket.socket], tls: ssl.SSLContext | None = None
    ) -> None:
        """Take up what was saved, then accept connections on the public sockets and lead."""
        self.tls = tls
        self.restore()
        await self.accept(sockets)
        self.lead()

    # --- as one of several workers ---

    def restore(self, kept: Mapping[str, str] = NOTHING) -> None:
        super().restore(kept)
        self._saved_verdicts.restore()

    async def open(self, sockets: Sequence[socket.socket]) -> None:
        self.deadlines.each_tick += [self.guard.sweep, self.hub_watch.look]
        await self.edge.listen(sockets, self.tls)

    def lead(self) -> None:
        """Speak with the hub, and write down what it says."""
        super().lead()
        self.table.on_whole = self._resync.note_whole_table
        self.table.on_gap = self._resync.note_gap
        self._leading.start(self._resync.run(), name="resync")
        self._leading.start(self._activity.run(), name="activity")
        if self.settings.fleet_hub is not None and self.settings.fleet is not None:
            certificate = EdgeCertificate(self.settings, self.settings.fleet, self.clock)
            self._leading.start(certificate.run(), name="certificate")

    async def unlead(self) -> None:
        """Say what is still to be said, save what is to be kept, and write no more."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_REPORT_SECONDS):
                await self._activity.report()
        await super().unlead()

    def disown(self) -> None:
        super().disown()
        self.table.on_whole = self.table.on_gap = lambda: None

    async def close(self) -> None:
        await super().close()
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


def worker(descriptor: str, lines: LineWriter) -> Callable[[Crew], PushedProxy]:
    """Return what makes a worker's proxy, inside its event loop.

    Args:
        descriptor: Of the settings file's text.
        lines: Where the log goes.

    Raises:
        SettingsError: If it cannot be followed.
        TlsError: If a certificate cannot be used.
    """
    settings = worker_settings(descriptor)
    configure_logging(
        "proxy",
        level=settings.log_level,
        json_lines=settings.log_json,
        to=lines,
        most_a_second=EVENTS_A_SECOND,
    )
    tls = public_context(settings.certificates) if settings.certificates else None

    def make(crew: Crew) -> PushedProxy:
        if settings.mode == "relay":
            return Relay(settings, lines=lines, crew=crew)
        proxy = Proxy(settings, lines=lines, crew=crew)
        proxy.tls = tls
        return proxy

    return make

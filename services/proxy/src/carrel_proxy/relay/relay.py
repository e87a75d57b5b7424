"""Puts a relay together. It knows no hub and decides on nobody's access."""

import socket
from collections.abc import Sequence
from dataclasses import replace

from carrel_proxy.control.counted import Counted
from carrel_proxy.control.pushed import PushedProxy, access_log_of
from carrel_proxy.control.saved import SavedFiles, SavedTable
from carrel_proxy.control.shared import Shared
from carrel_proxy.control.table import Table
from carrel_proxy.core.head import HeadLimits
from carrel_proxy.engine.counters import Counters
from carrel_proxy.engine.deadlines import NEVER, Deadlines
from carrel_proxy.engine.edge import Edge, Limits, limits_of
from carrel_proxy.engine.kept import Kept
from carrel_proxy.engine.routes import RouteOptions
from carrel_proxy.errors import BadTargetError
from carrel_proxy.mutual_tls import MutualTls, towards_edges
from carrel_proxy.process.crew import Crew
from carrel_proxy.relay.dispatch import RelayDispatcher
from carrel_proxy.relay.gate import Gate
from carrel_proxy.settings import ProxySettings
from carrel_shared.addresses import TcpAddress, UnixAddress, parse_address
from carrel_shared.clock import Clock, SystemClock
from carrel_shared.lines import LineWriter
from carrel_shared.settings import SettingsError
from carrel_shared.tasks import TaskOwner
from carrel_shared.wire.routes import Revocation, Route

_HEAD = HeadLimits(head=256 * 1024, target=64 * 1024, fields=1000)


class Relay(PushedProxy):
    """All parts of one relay, wired. Made inside the event loop that runs it."""

    caller = "agent"
    """Who may push a relay's table: the agent of its own host."""

    def __init__(
        self,
        settings: ProxySettings,
        *,
        clock: Clock | None = None,
        lines: LineWriter | None = None,
        crew: Crew | None = None,
    ) -> None:
        super().__init__()
        if settings.fleet is None:
            raise SettingsError("a relay needs fleet_ca, fleet_cert and fleet_key")
        self.settings = settings
        self.crew = crew or Crew()
        self.tasks = TaskOwner()
        self.clock = clock or SystemClock()
        self.deadlines = Deadlines(self.clock)
        self.counters = Counters()
        self.dispatcher = RelayDispatcher()
        kept = Kept(settings.upstream_kept_seconds)
        self.edge = Edge(
            self.dispatcher,
            relay_limits(settings),
            deadlines=self.deadlines,
            tasks=self.tasks,
            default_host=settings.bind,
            counters=self.counters,
            access_log=access_log_of(settings, lines, self.clock),
            kept=kept,
        )
        self._tls = MutualTls(settings.fleet, towards_edges)
        options = RouteOptions(
            deadlines=self.deadlines,
            base_url=settings.base_url,
            hub_prefix=settings.hub_prefix,
            connect_seconds=settings.connect_seconds,
            upstream_idle_seconds=settings.upstream_idle_seconds,
            kept=kept,
            vanished_seconds=settings.vanished_seconds,
            counters=self.counters,
            check=check_route,
        )
        access = _NobodysAccess()
        self.table = Table(self.dispatcher, access, options, None)
        self.counted = Counted(self.edge, self.clock)
        self.shared = Shared(self.crew, self.edge, self.table, access, self.counted)
        self.saved_table = SavedTable(settings.state_dir, self.table)
        self.saved = SavedFiles(self.saved_table)

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Take up the table that was saved, then accept connections of edges and lead."""
        self.restore()
        await self.accept(sockets)
        self.lead()

    async def open(self, sockets: Sequence[socket.socket]) -> None:
        for listening in sockets:
            self.edge.listens(Gate(self.edge, self._tls, listening))


class _NobodysAccess:
    """Edges decide on access and cut what is revoked; a relay has nothing to forget."""

    def recheck_all(self) -> None:
        pass

    def revoke(self, revocation: Revocation) -> None:
        pass


def relay_limits(settings: ProxySettings) -> Limits:
    """Return limits that an edge's own come before: it keeps the time, and tells people.

    All clients come from the few addresses of edges, which have counted them.
    """
    limits = limits_of(settings)
    own = limits.head
    head = HeadLimits(
        max(own.head, _HEAD.head), max(own.target, _HEAD.target), max(own.fields, _HEAD.fields)
    )
    return replace(
        limits,
        head=head,
        body_seconds=2 * limits.body_seconds,
        stall_seconds=2 * limits.stall_seconds,
        response_seconds=NEVER,
        connections_per_address=0,
    )


def check_route(route: Route) -> None:
    """Refuse what a relay does not do: it leads to processes of this host, of a known account.

    Raises:
        BadTargetError: Saying what is wrong.
    """
    if route.access is not None or route.host_id is not None:
        raise BadTargetError(f"{route.prefix!r}: a relay guards no route and leads to no relay")
    for target in route.targets:
        address = None if target.startswith("https:") else parse_address(target)
        if isinstance(address, UnixAddress) and route.peer_uid is None:
            raise BadTargetError(f"{route.prefix!r}: a relay's route names the peer_uid")
        if address is None or (isinstance(address, TcpAddress) and not address.is_loopback):
            raise BadTargetError(f"{target!r}: a relay leads to this host only")

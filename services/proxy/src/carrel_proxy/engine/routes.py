"""Routes as the data plane uses them: the hub's entry, its pools, and when it was last used."""

from dataclasses import dataclass

import structlog

from carrel_proxy.core.cookies import Fence, refused_cookies
from carrel_proxy.core.door import open_door
from carrel_proxy.core.headers import heads_for
from carrel_proxy.core.paths import checked_segments
from carrel_proxy.core.troubles import spawn_link
from carrel_proxy.engine.counters import Counters
from carrel_proxy.engine.deadlines import Deadlines
from carrel_proxy.engine.kept import Kept
from carrel_proxy.engine.relay_pool import RelayPool
from carrel_proxy.engine.route_checks import Check, check_nothing, read_relay, read_target
from carrel_proxy.engine.upstream import Pool, UpstreamConnection
from carrel_proxy.errors import BusyError, TargetAwayError, WrongPeerError
from carrel_proxy.mutual_tls import MutualTls
from carrel_shared.wire.routes import Route

log = structlog.get_logger(__name__)

LOG_SECONDS = 10.0
"""How often at most a route's trouble is logged; a browser's tabs ask once a second each."""

_NEVER_LOGGED = float("-inf")


@dataclass(frozen=True, slots=True)
class RouteOptions:
    """What all routes share.

    Attributes:
        kept: Where connections wait that were not used just now; None keeps none of them.
        fleet: What relays of other hosts are spoken to with; None where there is none.
        check: Raises `BadTargetError` for a route that this proxy is not to have.
    """

    deadlines: Deadlines
    base_url: str
    hub_prefix: str
    connect_seconds: float
    upstream_idle_seconds: float
    counters: Counters
    vanished_seconds: float = 60.0
    most_connections: int = 0
    kept: Kept | None = None
    fleet: MutualTls | None = None
    check: Check = check_nothing


class LiveRoute:
    """One route in force.

    Of thousands few are used at a time, and each must be cheap to take: what only requests need is
    made by `wake`, before the first of them. Until then it is not there, so nobody can take a
    sleeping route for one without a guard.

    Attributes:
        wire: As the hub has it, and checked (`check_routes`).
        awake: It has been used: everything below is there.
        depth: The number of segments.
        prefix_bytes: The prefix as the hub has it, which is how cookies are scoped.
        fence: What keeps a user's server apart from its neighbours; None for everything else.
        door: How browsers sign in to it; None where the proxy does not guard.
        most_connections: How many may be in use at once; 0 is no limit.
        secret_fields: The line that tells the server that it is the proxy who asks.
        active_at: When it was last used, by the data plane's clock; None when never.
        reported_at: What of that the hub was told.
        heads: Response heads that were read just now, of all routes with the same rules.
        several: There are several targets, any of which will do.
        pools: One for each target, in no order.
        requests: Those that have ended.
        sockets: Open WebSockets.
        received: Bytes from clients that ended requests and sockets carried.
        sent: Bytes to clients, likewise.
        relayed: It leads to another host, through that one's relay.
    """

    __slots__ = (
        "_deadlines",
        "_logged",
        "_options",
        "access",
        "active_at",
        "awake",
        "depth",
        "door",
        "fence",
        "heads",
        "most_connections",
        "pools",
        "prefix",
        "prefix_bytes",
        "received",
        "relayed",
        "reported_at",
        "requests",
        "secret_fields",
        "sent",
        "several",
        "sockets",
        "wire",
    )

    def __init__(self, wire: Route, options: RouteOptions) -> None:
        self.wire = wire
        self.awake = False
        self._options = options

    def wake(self) -> None:
        """Make what requests need."""
        wire, options, access = self.wire, self._options, self.wire.access
        self.relayed = wire.host_id is not None
        self.prefix = wire.prefix
        self.prefix_bytes = wire.prefix.encode("ascii")
        self.depth = len(self.segments)
        self.access = access
        self.active_at: float | None = None
        self.reported_at: float | None = None
        self.requests = self.sockets = self.received = self.sent = 0
        self.most_connections = options.most_connections
        self.several = len(wire.targets) > 1
        self._deadlines = options.deadlines
        self._logged = _NEVER_LOGGED
        self.fence = _fence(wire, self.prefix_bytes)
        self.heads = heads_for(self.fence)
        self.door = open_door(access, wire.prefix, options.hub_prefix) if access else None
        self.secret_fields = (
            b"X-Carrel-Secret: %b\r\n" % access.secret.encode("ascii")
            if access and access.secret
            else b""
        )
        self.pools = [_pool(wire, target, options) for target in wire.targets]
        self.awake = True

    @property
    def segments(self) -> list[bytes]:
        """The prefix, decoded."""
        return checked_segments(self.wire.prefix)

    @property
    def spawn(self) -> str | None:
        """The hub's page that starts this server."""
        if not self.wire.server:
            return None
        hub = self.door.hub if self.door else self._options.hub_prefix
        return spawn_link(hub, self._options.base_url, self.prefix)

    def take(self, *, repeatable: bool) -> UpstreamConnection | None:
        """Return a connection that waits for use, or None.

        Args:
            repeatable: The request can be sent again, should the connection turn out to be closed.
        """
        pools = self.pools
        if not self.several:
            return pools[0].take(repeatable=repeatable)
        pools.append(pools.pop(0))  # of equals another one each time: a quiet route uses all
        return in_order(pools, self._deadlines.now)[0].take(repeatable=repeatable)

    async def connect(self) -> UpstreamConnection:
        """Open a connection; of several targets to the least busy, passing over those that fail.

        Raises:
            TargetAwayError: If no target answers.
            WrongPeerError: If somebody else answers in a target's place.
            BusyError: If this route has as many connections as one may have.
        """
        busy = self.sockets + sum(pool.busy for pool in self.pools)
        if self.most_connections and busy >= self.most_connections:
            self.note_trouble("route_full", f"{busy} connections")
            raise BusyError(f"{busy} connections to {self.prefix}")
        failure: TargetAwayError | WrongPeerError = TargetAwayError("there is no target")
        now = self._deadlines.now
        for pool in in_order(self.pools, now) if self.several else self.pools:
            if pool.failures and pool.away_until <= now:
                pool.probe()
            try:
                return await pool.connect()
            except (TargetAwayError, WrongPeerError) as error:
                failure = error
                self.failed(pool, str(error))
        if isinstance(failure, TargetAwayError):
            self.note_trouble("target_away", str(failure))
        raise failure

    def failed(self, pool: Pool, reason: str) -> None:
        """Pass a target over for a while, if there are others."""
        if self.several:
            pool.eject()
            self.note_trouble("target_passed_over", reason)

    def note_trouble(self, event: str, reason: str) -> None:
        """Log a failure of this route, unless one was logged just now."""
        if self._deadlines.now - self._logged >= LOG_SECONDS:
            self._logged = self._deadlines.now
            log.warning(event, prefix=self.prefix, reason=reason)

    def note_cookies(self, values: list[bytes]) -> None:
        """Log what of a server's cookies is not passed on: it may be why a sign-in fails there."""
        if self.fence is not None and (refused := refused_cookies(values, self.fence)):
            self.note_trouble("cookies_refused", ", ".join(refused[:10]))

    def close(self) -> None:
        """Keep no connections from now on. Requests under way go on to their end."""
        if self.awake:
            for pool in self.pools:
                pool.close()


def _pool(wire: Route, target: str, options: RouteOptions) -> Pool:
    if wire.host_id is not None:
        return RelayPool(
            read_relay(target),
            wire.host_id,
            options.fleet,
            options.deadlines,
            connect_seconds=options.connect_seconds,
            idle_seconds=options.upstream_idle_seconds,
            counters=options.counters,
            vanished_seconds=options.vanished_seconds,
        )
    return Pool(
        read_target(target),
        wire.peer_uid,
        options.deadlines,
        connect_seconds=options.connect_seconds,
        idle_seconds=options.upstream_idle_seconds,
        counters=options.counters,
        vanished_seconds=options.vanished_seconds,
        # What several targets stand for is busy, and may end one after the other: soon let go of.
        kept=options.kept if len(wire.targets) == 1 else None,
    )


def in_order(pools: list[Pool], now: float) -> list[Pool]:
    """Return targets in the order they are tried: the least busy first.

    One that failed comes last, but is never given up.
    """
    return sorted(pools, key=lambda pool: (max(pool.away_until - now, 0.0), pool.busy))


def _fence(wire: Route, prefix: bytes) -> Fence | None:
    if not wire.server:
        return None
    own_host = bool(wire.host)
    return Fence(b"/" if own_host else prefix, wire.stock_client_id.encode("ascii"), own_host)

"""Routes as the data plane uses them: the hub's entry, its pools, and when it was last used."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from carrel_proxy.core.cookies import Fence, refused_cookies
from carrel_proxy.core.door import open_door
from carrel_proxy.core.head import ResponseHead
from carrel_proxy.core.paths import prefix_segments
from carrel_proxy.core.troubles import spawn_link
from carrel_proxy.engine.counters import Counters
from carrel_proxy.engine.deadlines import Deadlines
from carrel_proxy.engine.relay_pool import RelayPool
from carrel_proxy.engine.upstream import Pool, UpstreamConnection
from carrel_proxy.errors import BadTargetError, BusyError, TargetAwayError, WrongPeerError
from carrel_proxy.mutual_tls import MutualTls
from carrel_shared.addresses import (
    Address,
    AddressError,
    TcpAddress,
    check_upstream_host,
    parse_address,
)
from carrel_shared.wire.routes import Route

log = structlog.get_logger(__name__)

_COOKIE_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]*")

LOG_SECONDS = 10.0
"""How often at most a route's trouble is logged; a browser's tabs ask once a second each."""

_NEVER_LOGGED = float("-inf")
_PLAIN_UNIX = re.compile(r"unix:/[\x21-\x7e]{1,106}")
"""Most targets by far; what is read in no other way need not be read until it is used."""


def check_nothing(_route: Route) -> None:
    """Accept every route."""


@dataclass(frozen=True, slots=True)
class RouteOptions:
    """What all routes share.

    Attributes:
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
    fleet: MutualTls | None = None
    check: Callable[[Route], None] = check_nothing


class LiveRoute:
    """One route in force.

    Of thousands few are used at a time, and each must be cheap to take: what only requests need is
    made by `wake`, before the first of them. Until then it is not there, so nobody can take a
    sleeping route for one without a guard.

    Attributes:
        wire: As the hub has it.
        segments: The prefix, decoded.
        awake: It has been used: everything below is there.
        depth: The number of segments.
        prefix_bytes: The prefix as the hub has it, which is how cookies are scoped.
        fence: What keeps a user's server apart from its neighbours; None for everything else.
        door: How browsers sign in to it; None where the proxy does not guard.
        most_connections: How many may be in use at once; 0 is no limit.
        secret_fields: The line that tells the server that it is the proxy who asks.
        active_at: When it was last used, by the data plane's clock; None when never.
        reported_at: What of that the hub was told.
        last_head: The last response head, as it came and as it was read.
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
        "last_head",
        "most_connections",
        "pools",
        "prefix",
        "prefix_bytes",
        "received",
        "relayed",
        "reported_at",
        "requests",
        "secret_fields",
        "segments",
        "sent",
        "several",
        "sockets",
        "wire",
    )

    def __init__(self, wire: Route, options: RouteOptions) -> None:
        options.check(wire)
        _check(wire)
        # What is no ASCII is refused like anything else that is not percent-encoded.
        self.segments = prefix_segments(wire.prefix.encode("ascii", "replace"))
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
        self.last_head: tuple[bytes, ResponseHead] | None = None
        self._deadlines = options.deadlines
        self._logged = _NEVER_LOGGED
        self.fence = _fence(wire, self.prefix_bytes)
        self.door = open_door(access, wire.prefix, options.hub_prefix) if access else None
        self.secret_fields = (
            b"X-Carrel-Secret: %b\r\n" % access.secret.encode("ascii")
            if access and access.secret
            else b""
        )
        self.pools = [_pool(wire, target, options) for target in wire.targets]
        self.awake = True

    @property
    def spawn(self) -> str | None:
        """The hub's page that starts this server."""
        if not self.wire.server:
            return None
        hub = self.door.hub if self.door else self._options.hub_prefix
        return spawn_link(hub, self._options.base_url, self.prefix)

    def take(self) -> UpstreamConnection | None:
        """Return a connection that waits for use, or None."""
        pools = self.pools
        if not self.several:
            return pools[0].take()
        pools.append(pools.pop(0))  # of equals another one each time: a quiet route uses all
        return in_order(pools, self._deadlines.now)[0].take()

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


def _check(wire: Route) -> None:
    """Refuse what could not be used; what is fine costs little, for there are thousands."""
    for target in wire.targets:
        if wire.host_id is not None:
            read_relay(target)
        elif _PLAIN_UNIX.fullmatch(target) is None:
            read_target(target)
    secret = wire.access.secret if wire.access is not None else ""
    if secret and not (secret.isascii() and secret.isprintable()):
        raise BadTargetError(f"{wire.prefix!r}: the secret does not fit into a header field")
    if not (client_id := wire.stock_client_id):
        return
    if not wire.server:
        raise BadTargetError(f"{wire.prefix!r}: stock_client_id is for servers only")
    if wire.access is not None:
        raise BadTargetError(f"{wire.prefix!r}: the proxy signs people in, or the server does")
    if not _COOKIE_NAME.fullmatch(client_id):
        raise BadTargetError(f"{wire.prefix!r}: stock_client_id is no name of a cookie")


def read_target(text: str) -> Address:
    """Return a target's address.

    Raises:
        BadTargetError: If it is not `unix:/path` or `http://host:port`, or leads to an address
            that belongs to no server of ours.
    """
    if not text.startswith(("unix:", "http://")):
        raise BadTargetError(f"{text!r}: a target is unix:/path or http://host:port")
    try:
        address = parse_address(text)
        if isinstance(address, TcpAddress):
            check_upstream_host(address)
    except AddressError as error:
        raise BadTargetError(str(error)) from error
    return address


def read_relay(text: str) -> TcpAddress:
    """Return the address of another host's relay.

    Raises:
        BadTargetError: If it is not `https://host:port`, or no host's.
    """
    scheme, _, rest = text.partition("://")
    address = read_target(f"http://{rest}") if scheme == "https" else None
    if not isinstance(address, TcpAddress):
        raise BadTargetError(f"{text!r}: a target on another host is https://host:port")
    return address

"""The public side as a whole: what its connections share, and how it starts and ends."""

import asyncio
import contextlib
import ipaddress
import itertools
import secrets
import socket
import ssl
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from carrel_proxy.access.verdicts import Grant
from carrel_proxy.core.body import RequestBody
from carrel_proxy.core.head import HeadLimits, RequestHead
from carrel_proxy.engine.access_log import AccessLog
from carrel_proxy.engine.caps import Caps, counted_as, most_connections
from carrel_proxy.engine.client import ClientConnection
from carrel_proxy.engine.counters import Counters
from carrel_proxy.engine.deadlines import NEVER, TICK_SECONDS, Deadlines
from carrel_proxy.engine.exchange import Exchange
from carrel_proxy.engine.half_closed import HalfClosed
from carrel_proxy.engine.keepalive import abort_unsent, probe_silent_peers
from carrel_proxy.engine.kept import Kept
from carrel_proxy.engine.tls_listener import TlsListener
from carrel_proxy.engine.tunnel import Tunnel
from carrel_proxy.settings import ProxySettings
from carrel_shared.tasks import TaskOwner

log = structlog.get_logger(__name__)

TIMED_A_TICK = 100
LOG_SECONDS = 10.0
_BACKLOG = 2048


@dataclass(frozen=True, slots=True)
class Limits:
    """How long and how much, for clients; seconds and bytes."""

    head: HeadLimits
    head_seconds: float
    body_seconds: float
    idle_seconds: float
    stall_seconds: float
    response_seconds: float
    vanished_seconds: float
    handshake_seconds: float
    pause_seconds: float
    leave_seconds: float = 1.0
    connections_per_address: int = 0


def limits_of(settings: ProxySettings) -> Limits:
    """Return the limits that are set."""
    return Limits(
        head=HeadLimits(settings.max_head_bytes, settings.max_target_bytes, settings.max_fields),
        head_seconds=settings.head_seconds,
        body_seconds=settings.body_seconds,
        idle_seconds=settings.idle_seconds,
        stall_seconds=settings.stall_seconds,
        response_seconds=settings.response_seconds or NEVER,
        vanished_seconds=settings.vanished_seconds,
        handshake_seconds=settings.handshake_seconds,
        pause_seconds=settings.pause_seconds or NEVER,
        connections_per_address=settings.max_connections_per_address,
    )


class Dispatches(Protocol):
    """What decides on requests; `Dispatcher` says how."""

    def dispatch(
        self,
        client: ClientConnection,
        head: RequestHead,
        body: RequestBody | None,
        pending: bytes,
    ) -> None: ...


class Closes(Protocol):
    """A listener."""

    def close(self) -> None: ...


class Edge:
    """The data plane.

    Attributes:
        dispatcher: Decides what becomes of a request.
        default_host: What an HTTP/1.0 request without `Host` is taken to mean.
        half_closed: Clients that send no more and may still wait.
        draining: No connection carries another request.
        arriving: Clients that shake hands, and what each is counted as; they are let in even when
            the end has begun.
        time: The loop's own clock, seconds: read once a turn of the loop, so cheap to ask.
        access_log: Where requests are noted when they end; None if nowhere.
        timings: How many requests are still to be timed before the next tick. On a busy proxy that
            is a sample; where there is little to do, it is all of them.
    """

    def __init__(
        self,
        dispatcher: Dispatches,
        limits: Limits,
        *,
        deadlines: Deadlines,
        tasks: TaskOwner,
        default_host: str,
        counters: Counters,
        trusted_peers: Sequence[str] = (),
        access_log: AccessLog | None = None,
        kept: Kept | None = None,
    ) -> None:
        self.limits = limits
        self._kept = kept or Kept(0)
        self.deadlines = deadlines
        self.tasks = tasks
        self.dispatcher = dispatcher
        self.default_host = default_host.encode("ascii", "ignore")
        self.draining = False
        self._ending = False
        self.half_closed = HalfClosed()
        deadlines.each_tick.append(self.half_closed.look)
        self.counters = counters
        self.time = asyncio.get_running_loop().time
        self.access_log = access_log
        self._time_more()
        deadlines.each_tick.append(self._time_more)
        if access_log is not None:
            deadlines.each_tick.append(access_log.tick)
        self._trusted = [ipaddress.ip_network(text) for text in trusted_peers]
        self._clients: set[ClientConnection] = set()
        self._tunnels: set[Tunnel] = set()
        self._servers: list[Closes] = []
        self._caps = Caps(most_connections(), limits.connections_per_address)
        self._logged = float("-inf")
        self._ids = itertools.count(1)
        self._id_prefix = secrets.token_hex(5).encode("ascii")
        self.arriving: dict[ClientConnection, bytes] = {}
        self._changed = asyncio.Event()
        self._no_tunnels = asyncio.Event()

    # --- life ---

    async def listen(
        self, sockets: Sequence[socket.socket], tls: ssl.SSLContext | None = None
    ) -> None:
        """Accept connections."""
        for listening in sockets:
            if tls is not None:
                self.listens(TlsListener(self, listening, lambda: tls))
            else:
                self.listens(await self._listen_plain(listening))

    async def _listen_plain(self, listening: socket.socket) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        probe_silent_peers(listening, self.limits.vanished_seconds)
        if listening.family == socket.AF_UNIX:
            return await loop.create_unix_server(
                lambda: ClientConnection(self), sock=listening, backlog=_BACKLOG
            )
        return await loop.create_server(
            lambda: ClientConnection(self), sock=listening, backlog=_BACKLOG
        )

    def listens(self, listener: Closes) -> None:
        """Close a listener when the end begins."""
        self._servers.append(listener)

    async def tick(self) -> None:
        """Keep time until cancelled."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            for _ in self.deadlines.ticking(self.deadlines.now + TICK_SECONDS):
                await asyncio.sleep(0)

    def close_listeners(self) -> None:
        """Accept no more."""
        servers, self._servers = self._servers, []
        for server in servers:
            server.close()

    def stop_listening(self) -> None:
        """Accept no more, and let no connection carry another request."""
        self.draining = self._ending = True
        self.close_listeners()
        for client in list(self._clients):
            client.drain()
        self._note_end()

    def send_away(self, *, draining: bool) -> None:
        """Let no connection carry another request, or do again. New ones are answered still."""
        self.draining = draining or self._ending
        if draining:
            for client in list(self._clients):
                client.drain()

    async def wait_until_idle(self, seconds: float) -> None:
        """Wait until nothing is open, but not longer than this."""
        if not await self._wait(lambda: not self._tunnels and self._is_empty(), seconds):
            log.info("sockets_cut", count=self.connections, after_seconds=seconds)

    async def _wait(self, over: Callable[[], bool], seconds: float) -> bool:
        """Wait until connections have ended; False if it takes too long."""
        try:
            async with asyncio.timeout(seconds):
                while not over():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def _is_empty(self) -> bool:
        return not self._clients and not self.arriving

    async def drain(self, seconds: float) -> None:
        """Let running requests finish, then end what is left.

        WebSockets, whose leaving takes a moment, are told before the time is over, so that all has
        ended by then: whoever asked for the end may not wait longer.
        """
        self.stop_listening()
        leaving = self.limits.leave_seconds
        await self._wait(self._is_empty, max(seconds - leaving, 0))
        _, empty = await asyncio.gather(
            self._leave_tunnels(leaving), self._wait(self._is_empty, leaving)
        )
        if not empty:
            log.info("requests_cut", count=len(self._clients))
        for tunnel in list(self._tunnels):
            tunnel.cut()
        for client in list(self._clients):
            abort_unsent(client.transport)

    async def _leave_tunnels(self, seconds: float) -> None:
        """Tell the WebSockets of the end; back when all are over, or after `seconds`."""
        if not self._tunnels:
            return
        self._no_tunnels.clear()
        for tunnel in list(self._tunnels):
            tunnel.leave()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._no_tunnels.wait()

    # --- connections ---

    def arrives(self, client: ClientConnection, name: object) -> str | None:
        """Count a client that begins to shake hands; the reason if there is no room for it.

        Args:
            name: The name of the socket's peer.
        """
        client.peer, _, counted = self.peer_of(name)
        self.arriving[client] = counted
        return self._caps.enter(counted)

    def has_arrived(self, client: ClientConnection) -> None:
        """Count it as one that shakes hands no more, however that ended."""
        counted = self.arriving.pop(client, None)
        if counted is not None:
            self._caps.leave(counted)
            self._note_end()

    def peer_of(self, name: object) -> tuple[bytes, bool, bytes]:
        """Return a client's address, whether it is a proxy we believe, and what it is counted as.

        Proxies and peers on unix sockets bring many people's connections.

        Args:
            name: The name of the socket's peer.
        """
        if not isinstance(name, tuple):
            # A unix socket's peer is on this machine; a TCP peer that is gone has no address.
            address = b"0.0.0.0" if name is None else b"127.0.0.1"
            return address, self._is_trusted(address), b""
        address = _plain_address(str(name[0]).encode("ascii"))
        trusted = self._is_trusted(address)
        return address, trusted, b"" if trusted else counted_as(address)

    def _is_trusted(self, address: bytes) -> bool:
        if not self._trusted:
            return False
        ip = ipaddress.ip_address(address.partition(b"%")[0].decode("ascii"))
        return any(ip in network for network in self._trusted)

    def connected(self, client: ClientConnection) -> str | None:
        """Take note of a client; the reason if there is no room for it."""
        self._clients.add(client)
        if self.arriving:
            self.has_arrived(client)
        self.deadlines.add(client)
        self.counters.connections += 1
        refused = self._caps.enter(client.counted_as)
        if len(self._kept) > self._caps.free:
            self._kept.shrink_to(self._caps.free)  # people come first
        return refused

    def note_turned_away(self, client: ClientConnection, reason: str) -> None:
        """Log that a client was turned away, unless that was just done."""
        if self.deadlines.now - self._logged >= LOG_SECONDS:
            self._logged = self.deadlines.now
            log.warning("connection_turned_away", peer=client.peer.decode("ascii"), reason=reason)

    def disconnected(self, client: ClientConnection) -> None:
        if client not in self._clients:
            return
        self._clients.remove(client)
        self._caps.leave(client.counted_as)
        self.deadlines.discard(client)
        self.half_closed.discard(client)
        self._note_end()

    def tunnel_opened(self, tunnel: Tunnel) -> None:
        self._tunnels.add(tunnel)
        self._caps.enter(tunnel.counted_as)
        self.deadlines.add(tunnel)
        self.counters.sockets += 1
        tunnel.route.sockets += 1

    def tunnel_ended(self, tunnel: Tunnel) -> None:
        """Forget a tunnel; it says so once for each of its ends."""
        if tunnel not in self._tunnels:
            return
        self._tunnels.remove(tunnel)
        self._caps.leave(tunnel.counted_as)
        if not self._tunnels:
            self._no_tunnels.set()
        self.deadlines.discard(tunnel)
        route, counters = tunnel.route, self.counters
        route.sockets -= 1
        route.received += tunnel.received
        route.sent += tunnel.sent
        counters.socket_received += tunnel.received
        counters.socket_sent += tunnel.sent
        if self.access_log is not None:
            self.access_log.socket_ended(tunnel, self.time())
        self._note_end()

    def _note_end(self) -> None:
        if self.draining:
            self._changed.set()

    @property
    def connections(self) -> int:
        """Open connections of clients, WebSockets among them."""
        return len(self._clients) + len(self._tunnels)

    @property
    def exchanges(self) -> list[Exchange]:
        """Requests under way."""
        return [client.exchange for client in self._clients if client.exchange is not None]

    @property
    def tunnels(self) -> Collection[Tunnel]:
        """Open WebSockets."""
        return self._tunnels

    def answer_began(self, began: float) -> None:
        """A target's answer began to a request that is timed."""
        self.timings -= 1
        self.counters.answer_began(self.time() - began)

    def _time_more(self) -> None:
        self.timings = TIMED_A_TICK if self.access_log is None else 1 << 30

    def next_request_id(self) -> bytes:
        """Return an id for a request: unique, not secret."""
        return b"%b%06x" % (self._id_prefix, next(self._ids))

    # --- access ---

    def grants(self) -> Iterator[Grant]:
        """Return the passages of all that is open."""
        for client in self._clients:
            if client.grant is not None:
                yield client.grant
        for tunnel in self._tunnels:
            if tunnel.grant is not None:
                yield tunnel.grant

    def cut(self, fits: Callable[[Grant], bool]) -> None:
        """End every connection whose passage fits."""
        for client in list(self._clients):
            if client.grant is not None and fits(client.grant):
                client.revoked()
        for tunnel in list(self._tunnels):
            if tunnel.grant is not None and fits(tunnel.grant):
                tunnel.cut()


def _plain_address(address: bytes) -> bytes:
    """Return an IPv4 address as such, though a socket for both kinds took it (RFC 4291 2.5.5.2)."""
    plain = address.removeprefix(b"::ffff:")
    return plain if b"." in plain and b":" not in plain else address

"""Connections to targets: opened, checked, kept for the next request, for one route alone."""

import asyncio
import errno
import socket
import ssl
import struct
from typing import Protocol, cast

import structlog

from carrel_proxy.engine.counters import Counters
from carrel_proxy.engine.deadlines import ALWAYS, Deadlines
from carrel_proxy.engine.keepalive import abort_unsent, connected_socket, probe_silent_peers
from carrel_proxy.engine.kept import MOST_KEPT_EACH, Kept
from carrel_proxy.engine.unheard import Unheard
from carrel_proxy.errors import BusyError, TargetAwayError, WrongPeerError
from carrel_shared.addresses import Address, TcpAddress, UnixAddress

log = structlog.get_logger(__name__)

MOST_IDLE = 128
"""Unused connections kept for each target."""

EJECTED_SECONDS = 5.0
"""How long a failed target is passed over at first; twice as long each time it fails again."""
LONGEST_EJECTED_SECONDS = 60.0

_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: unix(7)
_FULL_BACKLOG_SECONDS = 0.02
_NO_ROOM = frozenset((errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL))


_NONE_KEPT = Kept(0)


class Conversation(Protocol):
    """What an upstream connection is used for at a time."""

    def upstream_data(self, data: bytes) -> None: ...

    def upstream_lost(self, error: Exception | None) -> None: ...

    def upstream_writable(self, *, writable: bool) -> None: ...


class UpstreamConnection(asyncio.Protocol):
    """One connection to one target of one route.

    Attributes:
        conversation: Who uses it; None while it waits in its pool.
        reused: It has carried a request before, so it may have been closed at the other end since.
        kept: It waited for so long that this is likely.
    """

    __slots__ = ("conversation", "idle_since", "kept", "pool", "reused", "transport")

    transport: asyncio.Transport

    def __init__(self, pool: "Pool") -> None:
        self.pool = pool
        self.conversation: Conversation | None = None
        self.reused = False
        self.kept = False
        self.idle_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.pool.open += 1
        self.pool.counters.upstream_opened += 1

    def data_received(self, data: bytes) -> None:
        if self.conversation is not None:
            self.conversation.upstream_data(data)
        else:
            # Nobody asked: whatever it is, it must not become the answer to the next request.
            log.warning("unsolicited_response", target=str(self.pool.target))
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.pool.open -= 1
        self.pool.counters.upstream_closed += 1
        self.pool.forget(self)
        conversation, self.conversation = self.conversation, None
        if conversation is not None:
            conversation.upstream_lost(exc)

    def pause_writing(self) -> None:
        if self.conversation is not None:
            self.conversation.upstream_writable(writable=False)

    def resume_writing(self) -> None:
        if self.conversation is not None:
            self.conversation.upstream_writable(writable=True)

    def close_unused(self) -> None:
        """Close it while it waits in its pool."""
        self.pool.forget(self)
        self.transport.abort()

    def vanished(self) -> None:
        """End it, and what waits beside it: nothing of what was sent arrives, nor may it later."""
        conversation, self.conversation = self.conversation, None
        abort_unsent(self.transport)
        self.pool.drop_idle()
        if conversation is not None:
            conversation.upstream_lost(ConnectionError("nothing of what is sent arrives there"))

    def leave(self) -> None:
        """Belong to no pool any more: a tunnel takes the transport over."""
        self.conversation = None
        self.pool.open -= 1
        self.pool.counters.upstream_closed += 1

    def release(self, *, reusable: bool) -> None:
        """End a conversation: back to the pool, or closed."""
        self.conversation = None
        if reusable and not self.transport.is_closing():
            self.pool.give(self)
        else:
            self.transport.abort()


class Pool:
    """The connections to one target of one route.

    Attributes:
        open: Connections there are, busy and idle.
        away_until: Passed over until then if there are other targets.
        failures: How often in a row it failed; kept where there are other targets.
        deadline: When its unused connections are to be looked at.
    """

    __slots__ = (
        "_closed",
        "_connect_seconds",
        "_deadlines",
        "_ejected_at",
        "_idle",
        "_idle_seconds",
        "_kept",
        "_opening",
        "_peer_uid",
        "_tls",
        "_unheard",
        "_vanished_seconds",
        "_watched",
        "away_until",
        "counters",
        "deadline",
        "failures",
        "open",
        "target",
    )

    away_error = TargetAwayError

    def __init__(
        self,
        target: Address,
        peer_uid: int | None,
        deadlines: Deadlines,
        *,
        connect_seconds: float,
        idle_seconds: float,
        counters: Counters,
        vanished_seconds: float = 60.0,
        tls: ssl.SSLContext | None = None,
        kept: Kept | None = None,
    ) -> None:
        self.target = target
        self.counters = counters
        self.open = 0
        self.away_until = 0.0
        self.failures = 0
        self.deadline = ALWAYS
        self._peer_uid = peer_uid
        self._tls = tls
        self._deadlines = deadlines
        self._connect_seconds = connect_seconds
        self._idle_seconds = idle_seconds
        self._kept = kept if kept is not None and _is_here(target) else _NONE_KEPT
        self._unheard = None if _is_here(target) else Unheard(deadlines, connect_seconds)
        self._vanished_seconds = vanished_seconds
        self._idle: list[UpstreamConnection] = []
        self._watched = False
        self._closed = False
        self._opening = 0
        self._ejected_at = 0.0

    @property
    def busy(self) -> int:
        """How many connections are in use, or will be."""
        return self.open + self._opening - len(self._idle)

    def take(self, *, repeatable: bool) -> UpstreamConnection | None:
        """Return the connection that was used last, or None if there is none to reuse.

        Args:
            repeatable: The request can be sent again, should the other end have closed it.
        """
        idle = self._idle
        while idle:
            connection = idle[-1]
            if connection.kept:
                if not repeatable:
                    return None
                connection.kept = False
                self._kept.discard(connection)
            idle.pop()
            if not connection.transport.is_closing():
                self.counters.upstream_reused += 1
                if self._unheard is not None:
                    self._unheard.add(connection)
                return connection
        return None

    def give(self, connection: UpstreamConnection) -> None:
        """Keep a connection whose conversation ended well."""
        if self._closed or len(self._idle) >= MOST_IDLE:
            connection.transport.abort()
            return
        connection.reused = True
        connection.idle_since = self._deadlines.now
        self._idle.append(connection)
        if not self._watched:
            self._watched = True
            self.deadline = ALWAYS
            self._deadlines.add(self)

    def forget(self, connection: UpstreamConnection) -> None:
        if connection.conversation is None and connection in self._idle:
            self._idle.remove(connection)
            self._kept.discard(connection)

    def timed_out(self) -> None:
        """Look after what was not used for long. The oldest come first.

        Servers close what nobody uses after some seconds. Before that, connections are closed here,
        or kept for requests that can be repeated.
        """
        now, idle, longest = self._deadlines.now, self._idle, self._kept.seconds
        old = [one for one in idle if one.idle_since <= now - self._idle_seconds]
        for number, connection in enumerate(reversed(old)):
            if number >= MOST_KEPT_EACH or connection.idle_since <= now - longest:
                connection.close_unused()
            elif not connection.kept:
                connection.kept = True
                self._kept.add(connection)
        if idle and not idle[-1].kept:
            return  # and at the next tick again
        self._watched = False
        if idle:
            self.deadline = idle[0].idle_since + longest
        else:
            self._deadlines.discard(self)

    def close(self) -> None:
        """Keep nothing from now on. Conversations go on to their end."""
        self._closed = True
        self.drop_idle()

    def eject(self) -> None:
        """Have this target passed over for a while: it failed, or says that it is ending.

        What fails together counts once; each time it fails again doubles the while.
        """
        now = self._deadlines.now
        if not self.failures or now >= self._ejected_at + self._ejection:
            self.failures += 1
            self._ejected_at = now
        self.away_until = now + self._ejection
        self.drop_idle()

    def probe(self) -> None:
        """Have it passed over by all but the one request that finds out whether it is back."""
        self.away_until = self._deadlines.now + self._ejection

    @property
    def _ejection(self) -> float:
        longer = 2.0 ** min(self.failures - 1, 10)
        return min(EJECTED_SECONDS * longer, LONGEST_EJECTED_SECONDS)

    def readmit(self) -> None:
        """Count on it again: it answers."""
        self.failures = 0
        self.away_until = 0.0

    def drop_idle(self) -> None:
        """Close what waits."""
        while self._idle:
            self._idle[-1].close_unused()

    async def connect(self) -> UpstreamConnection:
        """Open a connection.

        Raises:
            TargetAwayError: If nobody answers.
            WrongPeerError: If somebody answers who is not the one.
            BusyError: If this machine has no descriptor or no port left.
        """
        self._opening += 1
        try:
            async with asyncio.timeout(self._connect_seconds):
                return await self._open()
        except (OSError, TimeoutError) as error:
            self.counters.upstream_failed += 1
            if isinstance(error, OSError) and error.errno in _NO_ROOM:
                raise BusyError(f"{self.target}: {error}") from error
            raise self.away_error(f"{self.target}: {error or type(error).__name__}") from error
        finally:
            self._opening -= 1

    async def _open(self) -> UpstreamConnection:
        if isinstance(self.target, UnixAddress):
            connected = await self._connect_unix(self.target)
            try:
                loop = asyncio.get_running_loop()
                _, protocol = await loop.create_unix_connection(
                    lambda: UpstreamConnection(self), sock=connected
                )
            except BaseException:
                connected.close()
                raise
            return protocol
        return await self._connect_tcp(self.target, self._tls)

    async def _connect_tcp(
        self, target: TcpAddress, tls: ssl.SSLContext | None
    ) -> UpstreamConnection:
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_connection(
            lambda: UpstreamConnection(self), target.host, target.port, ssl=tls
        )
        if not target.is_loopback:  # of this machine's own processes the kernel knows when they end
            under = connected_socket(protocol.transport)
            if under is not None:
                probe_silent_peers(under, self._vanished_seconds)
        return protocol

    async def _connect_unix(self, target: UnixAddress) -> socket.socket:
        """Connect, and look who is there before anything is sent.

        A path can be a link that a user made, or be bound again by somebody else: what counts is
        the account that the kernel says is listening.
        """
        connecting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            connecting.setblocking(False)
            while True:
                try:
                    connecting.connect(target.path)
                    break
                except BlockingIOError:  # the backlog is full; there is nothing to wait on
                    await asyncio.sleep(_FULL_BACKLOG_SECONDS)
            if self._peer_uid is not None:
                self._check_peer(connecting)
        except BaseException:
            connecting.close()
            raise
        return connecting

    def _check_peer(self, connected: socket.socket) -> None:
        raw = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, uid, _ = _CREDENTIALS.unpack(raw)
        if uid != self._peer_uid:
            log.error(
                "wrong_peer", target=str(self.target), expected_uid=self._peer_uid, found_uid=uid
            )
            raise WrongPeerError(f"{self.target}: another account answers there")


def _is_here(target: Address) -> bool:
    """Whether a target is on this machine."""
    return isinstance(target, UnixAddress) or target.is_loopback

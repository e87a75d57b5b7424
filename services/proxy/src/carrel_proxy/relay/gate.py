"""Where edges come in: nobody else gets as far as a byte of HTTP."""

import asyncio
import socket
from typing import TYPE_CHECKING, cast

import structlog

from carrel_proxy.core.identity import EDGE, identities, is_identity
from carrel_proxy.engine.client import ClientConnection
from carrel_proxy.engine.keepalive import probe_silent_peers
from carrel_proxy.mutual_tls import MutualTls

if TYPE_CHECKING:
    from carrel_proxy.engine.edge import Edge

log = structlog.get_logger(__name__)

HANDSHAKE_SECONDS = 10.0
LOG_SECONDS = 1.0
"""How often at most a refusal is logged; whoever knocks could fill the disk."""

_AT_ONCE = 100
_PAUSE_SECONDS = 1.0


class Gate:
    """A listener that lets edges in and says in the log who else came.

    It accepts by itself: the event loop's own server keeps silent about handshakes that fail.
    """

    def __init__(self, edge: "Edge", tls: MutualTls, listening: socket.socket) -> None:
        self._edge = edge
        self._tls = tls
        self._listening = listening
        self._loop = asyncio.get_running_loop()
        self._logged = float("-inf")
        self._unlogged = 0
        probe_silent_peers(listening, edge.limits.vanished_seconds)
        self._open()

    def close(self) -> None:
        """Accept nobody from now on."""
        if self._listening.fileno() >= 0:
            self._loop.remove_reader(self._listening)
            self._listening.close()

    def _open(self) -> None:
        if self._listening.fileno() >= 0:
            self._loop.add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                connected, address = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptors or memory: others may soon give some back
                log.error("accept_failed", reason=error.strerror)
                self._loop.remove_reader(self._listening)
                self._loop.call_later(_PAUSE_SECONDS, self._open)
                return
            connected.setblocking(False)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            visitor = _Visitor(self, FromEdge(self._edge), str(address[0]))
            self._edge.arriving.add(visitor.client)
            self._edge.tasks.start(self._let_in(connected, visitor), name="handshake")

    async def _let_in(self, connected: socket.socket, visitor: "_Visitor") -> None:
        try:
            await self._loop.connect_accepted_socket(
                lambda: visitor,
                connected,
                ssl=self._tls.context(),
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
            )
        except OSError as error:
            connected.close()
            self.refused(visitor.peer, str(error) or type(error).__name__)

    def enter(self, visitor: "_Visitor", transport: asyncio.Transport) -> None:
        """Look at the certificate of a connection whose handshake went well."""
        certificate = transport.get_extra_info("peercert")
        if not is_identity(certificate, EDGE):
            said = ", ".join(sorted(identities(certificate))) or "nothing"
            self.refused(visitor.peer, f"its certificate says {said} where {EDGE} is needed")
            transport.abort()
            return
        transport.set_protocol(visitor.client)
        visitor.client.connection_made(transport)

    def refused(self, peer: str, reason: str) -> None:
        """Log a refusal, or count it for the next line."""
        now = self._edge.deadlines.now
        if now - self._logged < LOG_SECONDS:
            self._unlogged += 1
            return
        log.warning("edge_refused", peer=peer, reason=reason, unlogged_before=self._unlogged)
        self._logged, self._unlogged = now, 0


class FromEdge(ClientConnection):
    """A connection of an edge's."""

    __slots__ = ()

    def _turn_away(self, reason: str) -> None:
        """Hang up: an answer to a request that was not read would be taken for a server's."""
        self.edge.note_turned_away(self, reason)
        self.transport.close()


class _Visitor(asyncio.Protocol):
    """A connection up to the moment when it is known whose it is; not a byte is read of it."""

    def __init__(self, gate: Gate, client: FromEdge, peer: str) -> None:
        self._gate = gate
        self.client = client
        self.peer = peer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._gate.enter(self, cast(asyncio.Transport, transport))

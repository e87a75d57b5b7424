"""Where edges come in: nobody else gets as far as a byte of HTTP."""

import asyncio
import socket
from typing import TYPE_CHECKING, cast

import structlog

from carrel_proxy.core.identity import EDGE, identities, is_identity
from carrel_proxy.engine.client import ClientConnection
from carrel_proxy.engine.tls_listener import TlsListener
from carrel_proxy.mutual_tls import MutualTls

if TYPE_CHECKING:
    from carrel_proxy.engine.edge import Edge

log = structlog.get_logger(__name__)

LOG_SECONDS = 1.0
"""How often at most a refusal is logged; whoever knocks could fill the disk."""


class Gate(TlsListener):
    """A listener that lets edges in and says in the log who else came."""

    def __init__(self, edge: "Edge", tls: MutualTls, listening: socket.socket) -> None:
        super().__init__(edge, listening, tls.context)
        self._logged = float("-inf")
        self._unlogged = 0

    def make_client(self) -> ClientConnection:
        return FromEdge(self.edge)

    def protocol_of(self, client: ClientConnection) -> asyncio.Protocol:
        return _Visitor(self, client)

    def enter(self, client: ClientConnection, transport: asyncio.Transport) -> None:
        """Look at the certificate of a connection whose handshake went well."""
        certificate = transport.get_extra_info("peercert")
        if not is_identity(certificate, EDGE):
            said = ", ".join(sorted(identities(certificate))) or "nothing"
            self.failed(client, f"its certificate says {said} where {EDGE} is needed")
            transport.abort()
            return
        transport.set_protocol(client)
        client.connection_made(transport)

    def failed(self, client: ClientConnection, reason: str) -> None:
        """Log a refusal, or count it for the next line."""
        now = self.edge.deadlines.now
        if now - self._logged < LOG_SECONDS:
            self._unlogged += 1
            return
        peer = client.peer.decode("ascii")
        log.warning("edge_refused", peer=peer, reason=reason, unlogged_before=self._unlogged)
        self._logged, self._unlogged = now, 0


class FromEdge(ClientConnection):
    """A connection of an edge's, whose word about its own clients counts."""

    __slots__ = ()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.trusted = True

    def _turn_away(self, reason: str) -> None:
        """Hang up: an answer to a request that was not read would be taken for a server's."""
        self.edge.note_turned_away(self, reason)
        self.transport.close()


class _Visitor(asyncio.Protocol):
    """A connection up to the moment when it is known whose it is; not a byte is read of it."""

    def __init__(self, gate: Gate, client: ClientConnection) -> None:
        self._gate = gate
        self._client = client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._gate.enter(self._client, cast(asyncio.Transport, transport))

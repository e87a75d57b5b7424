"""TLS listeners: who shakes hands is counted like everybody else, and may take only so long.

They accept by themselves: the event loop's own servers say neither who begins a handshake nor that
one has failed.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from carrel_proxy.engine.client import ClientConnection
from carrel_proxy.engine.keepalive import probe_silent_peers

if TYPE_CHECKING:
    from carrel_proxy.engine.edge import Edge

log = structlog.get_logger(__name__)

_AT_ONCE = 100
_PAUSE_SECONDS = 1.0


class TlsListener:
    """Lets clients in once they have shaken hands.

    Args:
        context: Returns what the next connection is to use.
    """

    def __init__(
        self, edge: "Edge", listening: socket.socket, context: Callable[[], ssl.SSLContext]
    ) -> None:
        self.edge = edge
        self._context = context
        self._listening = listening
        self._loop = asyncio.get_running_loop()
        probe_silent_peers(listening, edge.limits.vanished_seconds)
        self._open()

    def close(self) -> None:
        """Accept nobody from now on."""
        if self._listening.fileno() >= 0:
            self._loop.remove_reader(self._listening)
            self._listening.close()

    # --- what a listener for some alone does differently ---

    def make_client(self) -> ClientConnection:
        """Return the connection of who has come."""
        return ClientConnection(self.edge)

    def protocol_of(self, client: ClientConnection) -> asyncio.Protocol:
        """Return what takes the transport after a handshake that went well."""
        return client

    def failed(self, client: ClientConnection, reason: str) -> None:
        """Take note of a handshake that failed. On the open net most are no clients of ours."""

    # --- accepting ---

    def _open(self) -> None:
        if self._listening.fileno() >= 0:
            self._loop.add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                connected, name = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptors or memory: others may soon give some back
                log.error("accept_failed", reason=error.strerror)
                self._loop.remove_reader(self._listening)
                self._loop.call_later(_PAUSE_SECONDS, self._open)
                return
            self._arrive(connected, name)

    def _arrive(self, connected: socket.socket, name: object) -> None:
        client = self.make_client()
        reason = self.edge.arrives(client, name)
        if reason is not None:
            self.edge.note_turned_away(client, reason)
            self.edge.has_arrived(client)
            connected.close()
            return
        connected.setblocking(False)
        if connected.family != socket.AF_UNIX:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.edge.tasks.start(self._shake_hands(connected, client), name="handshake")

    async def _shake_hands(self, connected: socket.socket, client: ClientConnection) -> None:
        try:
            await self._loop.connect_accepted_socket(
                lambda: self.protocol_of(client),
                connected,
                ssl=self._context(),
                ssl_handshake_timeout=self.edge.limits.handshake_seconds,
            )
        except OSError as error:
            connected.close()
            self.failed(client, str(error) or type(error).__name__)
        finally:
            self.edge.has_arrived(client)

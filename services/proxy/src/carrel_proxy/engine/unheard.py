"""Connections to other machines over which something was sent after they had waited.

Such a machine may have vanished meanwhile. Its kernel acknowledges what arrives, however long a
server takes to answer; where it acknowledges nothing for as long as connecting may take, the
connection leads nowhere, and this machine's kernel would go on trying for a quarter of an hour.
"""

import asyncio
import struct
from socket import IPPROTO_TCP, TCP_INFO
from typing import Protocol

from carrel_proxy.engine.deadlines import ALWAYS, TICK_SECONDS, Deadlines
from carrel_proxy.engine.keepalive import connected_socket

_ACKNOWLEDGED_AT = 120
"""Where struct tcp_info has tcpi_bytes_acked: linux/tcp.h."""
_NUMBER = struct.Struct("=Q")


class Reused(Protocol):
    """A connection that carries a request again."""

    transport: asyncio.Transport

    def vanished(self) -> None:
        """End it: nothing of what was sent arrives."""


class Unheard:
    """Those of one target.

    Attributes:
        deadline: They are looked at each tick while there are any.
    """

    def __init__(self, deadlines: Deadlines, seconds: float) -> None:
        self.deadline = ALWAYS
        self._deadlines = deadlines
        self._seconds = seconds + TICK_SECONDS  # the time of the last tick is when they are added
        self._sent: dict[Reused, tuple[float, int]] = {}

    def add(self, connection: Reused) -> None:
        """Look after a connection over which something is sent now."""
        before = acknowledged(connection.transport)
        if before is None:
            return
        if not self._sent:
            self._deadlines.add(self)
        self._sent.pop(connection, None)  # what was added last is last
        self._sent[connection] = (self._deadlines.now, before)

    def timed_out(self) -> None:
        """Look at those whose time is over. The oldest come first."""
        latest = self._deadlines.now - self._seconds
        for connection, (since, before) in list(self._sent.items()):
            if since > latest:
                break
            del self._sent[connection]
            if acknowledged(connection.transport) == before:
                connection.vanished()
        if not self._sent:
            self._deadlines.discard(self)


def acknowledged(transport: asyncio.Transport) -> int | None:
    """Return how many bytes the other end's kernel has taken; None if nobody knows any more."""
    connected = connected_socket(transport)
    if connected is None:
        return None
    size = _ACKNOWLEDGED_AT + _NUMBER.size
    info = connected.getsockopt(IPPROTO_TCP, TCP_INFO, size)
    return int(_NUMBER.unpack_from(info, _ACKNOWLEDGED_AT)[0]) if len(info) == size else None

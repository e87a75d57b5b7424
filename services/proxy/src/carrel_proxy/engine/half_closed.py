"""Clients that send no more: some wait for their answer, the others are gone.

Both look the same, the end of what they send. Who is gone answers whatever comes with a reset, so
the next bytes of the answer are sent in advance where it is known what they will be. In the middle
of a sized body that stands still nothing can be; there, and for those who leave later, the kernel's
probes are answered with a reset once the other end has forgotten the connection, a minute later.
What the kernel has found is looked up once a tick.
"""

import select
from typing import TYPE_CHECKING, cast

from carrel_proxy.engine.keepalive import fileno_of

if TYPE_CHECKING:
    import asyncio

    from carrel_proxy.engine.client import ClientConnection

_START = b"HTTP/1.1 "
"""How every answer of ours begins."""
_LEADING_ZERO = b"0"
"""How every chunk may begin (RFC 9112 7.1: a size is any number of hexadecimal digits)."""


class HalfClosed:
    """All such clients of one proxy."""

    def __init__(self) -> None:
        self._waiting: set[ClientConnection] = set()

    def add(self, client: "ClientConnection") -> None:
        """Watch a client whose answer is still to come, or is under way."""
        self._waiting.add(client)
        exchange = client.exchange
        if exchange is None or client.transport.is_closing():
            return
        if not exchange.answered:
            client.transport.write(_START)
            client.transport = cast("asyncio.Transport", _Begun(client))
        elif exchange.between_chunks:
            client.transport.write(_LEADING_ZERO)

    def discard(self, client: "ClientConnection") -> None:
        self._waiting.discard(client)

    def look(self) -> None:
        """End the connections of those who are gone."""
        for client in list(self._waiting):
            if _is_gone(client.transport):
                client.transport.abort()


class _Begun:
    """A transport on which the first answer has begun already."""

    def __init__(self, client: "ClientConnection") -> None:
        self._client = client
        self._transport = client.transport

    def write(self, data: bytes) -> None:
        self._client.transport = self._transport
        self._transport.write(data.removeprefix(_START))

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)


def _is_gone(transport: "asyncio.Transport") -> bool:
    """Whether nothing can be sent any more either."""
    descriptor = fileno_of(transport)
    if descriptor is None:
        return True
    poll = select.poll()
    poll.register(descriptor, 0)
    return bool(poll.poll(0))  # with no events asked for, only POLLHUP and POLLERR are reported

"""A WebSocket after its handshake: two connections, bytes from each to the other, none changed.

Of what the server sends, the headers of frames are counted: so when the proxy ends it can say so
with a Close frame, which may be written between two frames only.
"""

import asyncio
from collections.abc import Callable

from carrel_proxy.access.verdicts import Grant
from carrel_proxy.core.frames import CLOSE_RESTARTING, FrameCounter
from carrel_proxy.engine.deadlines import NEVER, Deadlines
from carrel_proxy.engine.keepalive import notice_vanished
from carrel_proxy.engine.routes import LiveRoute

LINGER_SECONDS = 10.0
"""How long one direction may stay open after the other has ended."""


class Tunnel:
    """Both ends of an open WebSocket.

    Attributes:
        counted_as: What its client's address is counted as.
        grant: What lets it be open; None where the proxy does not guard.
        deadline: Set when one direction has ended.
        frames: Where the frames of the server end.
    """

    __slots__ = (
        "_ends",
        "_from_client",
        "_from_upstream",
        "_on_end",
        "client",
        "counted_as",
        "deadline",
        "deadlines",
        "frames",
        "grant",
        "route",
        "upstream",
    )

    def __init__(
        self,
        client: asyncio.Transport,
        upstream: asyncio.Transport,
        *,
        route: LiveRoute,
        counted_as: bytes,
        grant: Grant | None,
        deadlines: Deadlines,
        frames: FrameCounter,
        vanished_seconds: float,
        on_end: Callable[["Tunnel"], None],
    ) -> None:
        self.client = client
        self.upstream = upstream
        self.route = route
        self.counted_as = counted_as
        self.grant = grant
        self.deadlines = deadlines
        self.deadline = NEVER
        self.frames = frames
        self._on_end = on_end
        self._ends = 0
        for transport in (client, upstream):
            notice_vanished(transport, vanished_seconds)
        self._from_client = _ClientEnd(self, upstream)
        self._from_upstream: _UpstreamEnd = _UpstreamEnd(self, client)
        client.set_protocol(self._from_client)
        upstream.set_protocol(self._from_upstream)

    @property
    def received(self) -> int:
        """Bytes that came from the client."""
        return self._from_client.count

    @property
    def sent(self) -> int:
        """Bytes that went to the client."""
        return self._from_upstream.count

    def carried_before(self, received: int, sent: int) -> None:
        """Count what came with the handshake."""
        self._from_client.count += received
        self._from_upstream.count += sent

    def ended(self, other: asyncio.Transport) -> None:
        """One direction has ended: pass that on where the transport can, else end both."""
        self._ends += 1
        if self._ends == 2 or not other.can_write_eof() or other.is_closing():
            self.client.close()
            self.upstream.close()
            return
        other.write_eof()
        self.deadline = self.deadlines.now + LINGER_SECONDS

    def lost(self, other: asyncio.Transport) -> None:
        """One connection is gone: let the other have what was sent, then close it."""
        other.close()
        self.deadline = min(self.deadline, self.deadlines.now + LINGER_SECONDS)
        if self.client.is_closing() and self.upstream.is_closing():
            self._on_end(self)

    def timed_out(self) -> None:
        self.cut()

    def leave(self) -> None:
        """Tell the client between two frames to connect again. Whoever calls this cuts what
        is not gone a moment later."""
        if self.client.is_closing() or self.upstream.is_closing():
            return
        if self.frames.left:
            last = _LastFrame(self, self.client)
            last.count = self.sent
            self._from_upstream = last
            self.upstream.set_protocol(last)
        else:
            self.say_goodbye()

    def say_goodbye(self) -> None:
        """Write the Close frame. The client answers it and closes its connection."""
        self.client.write(CLOSE_RESTARTING)
        self.client.set_protocol(_Goodbye(self, self.upstream))
        if self.client.can_write_eof():
            self.client.write_eof()
        self.client.resume_reading()
        self.upstream.set_protocol(asyncio.Protocol())  # its end is no news
        self.upstream.abort()

    def cut(self) -> None:
        """End both sides now."""
        self.client.abort()
        self.upstream.abort()
        self._on_end(self)


class _End(asyncio.Protocol):
    __slots__ = ("_other", "_tunnel", "count")

    def __init__(self, tunnel: Tunnel, other: asyncio.Transport) -> None:
        self._tunnel = tunnel
        self._other = other
        self.count = 0

    def data_received(self, data: bytes) -> None:
        self.count += len(data)
        if not self._other.is_closing():
            self._other.write(data)

    def eof_received(self) -> bool:
        self._tunnel.ended(self._other)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._tunnel.lost(self._other)

    def pause_writing(self) -> None:
        if not self._other.is_closing():
            self._other.pause_reading()

    def resume_writing(self) -> None:
        if not self._other.is_closing():
            self._other.resume_reading()


class _ClientEnd(_End):
    def data_received(self, data: bytes) -> None:
        # What people send counts as use; answers to a browser's pings do too.
        self.count += len(data)
        self._tunnel.route.active_at = self._tunnel.deadlines.now
        if not self._other.is_closing():
            self._other.write(data)


class _UpstreamEnd(_End):
    def data_received(self, data: bytes) -> None:
        frames = self._tunnel.frames
        # What `is_one_short_frame` says, without a call: most reads are one.
        size = len(data)
        self.count += size
        if frames.left or size < 2 or data[1] > 125 or size != data[1] + 2:
            frames.count(data)
        if not self._other.is_closing():
            self._other.write(data)


class _LastFrame(_UpstreamEnd):
    def data_received(self, data: bytes) -> None:
        frames = self._tunnel.frames
        rest = frames.rest_of_frame(data)
        self.count += len(rest)
        self._other.write(rest)
        if not frames.left:
            self._tunnel.say_goodbye()


class _Goodbye(_ClientEnd):
    def data_received(self, data: bytes) -> None:
        pass  # its answer to the Close frame, and what it sent before it read that

    def eof_received(self) -> bool:
        return False

"""Bodies on their way through: measured, and framed anew."""

from carrel_proxy.core.chunks import LAST_CHUNK, ChunkError, ChunkReader, frame
from carrel_proxy.core.framing import Body
from carrel_proxy.core.head import RequestHead
from carrel_proxy.errors import BadRequestError

_ENOUGH = 64 * 1024


class RequestBody:
    """Takes what the client sends after a head, gives back what goes to the target.

    Attributes:
        done: The body has ended.
        surplus: What came after its end, which begins the next request.
    """

    __slots__ = ("_expects_continue", "_left", "_length", "_reader", "_sent", "done", "surplus")

    def __init__(self, head: RequestHead) -> None:
        self._reader = ChunkReader() if head.chunked else None
        self._left = self._length = head.length or 0
        self._sent = 0
        self._expects_continue = head.expects_continue
        self.done = not head.has_body
        self.surplus = b""

    @property
    def taken(self) -> int:
        """Bytes that went on so far."""
        return self._length - self._left if self._reader is None else self._sent

    @property
    def ready(self) -> bool:
        """Whether enough is known to be well-formed to let the head go on.

        Of a chunked body that is the first chunk, so that a message whose framing is wrong from the
        start never gets anywhere. A client that waits for `100 Continue` cannot be waited for.
        """
        reader = self._reader
        return (
            reader is None
            or reader.done
            or reader.chunks > 0
            or self._sent > _ENOUGH
            or self._expects_continue
        )

    def feed(self, data: bytes) -> bytes:
        """Return what to send on for these bytes.

        Raises:
            BadRequestError: If the chunked framing is wrong.
        """
        if self._reader is None:
            return self._measure(data)
        try:
            pieces = self._reader.feed(data)
        except ChunkError as error:
            raise BadRequestError(str(error)) from error
        out = b""
        if pieces or self._reader.done:
            out = frame(pieces, last=self._reader.done)
        self._sent += len(out)
        if self._reader.done:
            self.done = True
            self.surplus = self._reader.surplus
        return out

    def _measure(self, data: bytes) -> bytes:
        size = len(data)
        if size < self._left:
            self._left -= size
            return data
        left, self._left = self._left, 0
        self.done = True
        if size == left:
            return data
        self.surplus = data[left:]
        return data[:left]


class ResponseBody:
    """Takes what a target sends after a head, gives back what goes to the client.

    Attributes:
        done: The body has ended.
        clean: Nothing came after its end, so what comes next is the next response.
        until_close: Only the end of the connection ends it.
    """

    __slots__ = ("_chunked_onward", "_left", "_reader", "clean", "done", "until_close")

    def __init__(self, kind: Body, onward: Body, length: int) -> None:
        """`kind` is how it ends as it comes, `onward` how the client is told of its end."""
        self._reader = ChunkReader() if kind is Body.CHUNKED else None
        self._left = length
        self._chunked_onward = onward is Body.CHUNKED
        self.until_close = kind is Body.UNTIL_CLOSE
        self.done = False
        self.clean = True

    def feed(self, data: bytes) -> bytes:
        """Return what to send on for these bytes.

        Raises:
            ChunkError: If the chunked framing is wrong.
        """
        if self._reader is not None:
            return self._feed_chunked(self._reader, data)
        if self.until_close:
            return frame([data], last=False) if self._chunked_onward else data
        self._left -= len(data)
        if self._left > 0:
            return data
        self.done = True
        if self._left == 0:
            return data
        self.clean = False
        return data[: self._left]

    def _feed_chunked(self, reader: ChunkReader, data: bytes) -> bytes:
        pieces = reader.feed(data)
        self.done = reader.done
        self.clean = not reader.surplus
        if not self._chunked_onward:
            return b"".join(pieces)
        return frame(pieces, last=self.done) if pieces or self.done else b""

    def end(self) -> bytes:
        """Return what to send when the target has closed, which is the end of such a body."""
        return LAST_CHUNK if self._chunked_onward else b""

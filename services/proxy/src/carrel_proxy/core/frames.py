"""Where WebSocket frames end (RFC 6455 5.2). Counts headers; never looks at what is in a frame."""

CLOSE_RESTARTING = b"\x88\x02\x03\xf4"
"""A server's Close frame with the status 1012: it restarts, so connect again (IANA's registry of
WebSocket close codes). Decision 28 says why not 1001."""


class FrameCounter:
    """Follows the frames that one side sends, however they are cut into pieces.

    Attributes:
        left: Bytes that are still to come, as far as is known, before another frame may begin.
    """

    __slots__ = ("_head", "left")

    def __init__(self) -> None:
        self.left = 0
        self._head = b""

    def count(self, data: bytes) -> None:
        """Take note of bytes that were sent."""
        position, size = self.left, len(data)
        if self._head:
            data = self._head + data
            self._head = b""
            position, size = 0, len(data)
        while position < size:
            length = _frame_size(data, position)
            if not length:
                self._head = data[position:]
                self.left = 1
                return
            position += length
        self.left = position - size

    def rest_of_frame(self, data: bytes) -> bytes:
        """Return what of these bytes belongs to the frame that has begun, and take note of that."""
        end = self.left
        if self._head:
            size = _frame_size(self._head + data, 0)
            if not size:
                self._head += data
                return data
            end = size - len(self._head)
            self._head = b""
        rest = data[:end]
        self.left = end - len(rest)
        return rest


def is_one_short_frame(data: bytes) -> bool:
    """Whether these bytes, which begin with a frame, are that one frame. Most reads are."""
    return len(data) > 1 and data[1] < 126 and len(data) == data[1] + 2


def _frame_size(data: bytes, start: int) -> int:
    """Return the size of the frame that begins at `start`; 0 if its header is not all there."""
    there = len(data) - start
    if there < 2:
        return 0
    second = data[start + 1]
    size = 6 if second & 0x80 else 2
    length = second & 0x7F
    if length >= 126:
        more = 2 if length == 126 else 8
        if there < 2 + more:
            return 0
        length = int.from_bytes(data[start + 2 : start + 2 + more])
        size += more
    return size + length

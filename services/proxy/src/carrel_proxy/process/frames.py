"""Messages between parent and workers: a length, an address, and bytes that only the ends read.

The parent imports this without site-packages: standard library only, and little of that.
"""

import struct

PARENT = 0
"""The parent's address. Its messages, both ways, are JSON objects."""

_HEADER = struct.Struct("!II")
_MOST = 512 << 20


class FrameError(Exception):
    """What came is no frame; whoever sent it cannot be understood any more."""


def frame(address: int, payload: bytes) -> bytes:
    """Return a message to a worker or, where it leaves the parent, from one."""
    return _HEADER.pack(len(payload), address) + payload


class FrameReader:
    """Takes bytes as they come, gives whole messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Return the messages that are complete now, each with its address.

        Raises:
            FrameError: If a message is impossibly long.
        """
        buffer = self._buffer
        buffer += data
        found = []
        at = 0
        while len(buffer) - at >= _HEADER.size:
            length, address = _HEADER.unpack_from(buffer, at)
            if length > _MOST:
                raise FrameError(f"a message of {length} bytes")
            end = at + _HEADER.size + length
            if len(buffer) < end:
                break
            found.append((address, bytes(buffer[at + _HEADER.size : end])))
            at = end
        del buffer[:at]
        return found

    def rest(self) -> bytes:
        """Return what has come of a message that is not complete."""
        return bytes(self._buffer)

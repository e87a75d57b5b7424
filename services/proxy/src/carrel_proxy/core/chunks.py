"""Chunked bodies, read strictly, piece by piece (RFC 9112 7.1). Extensions and trailers end here.

The same bytes get the same verdict however they are cut: every bound is one on what was sent, never
on how much of it has arrived.
"""

import re

_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(;[\t\x20-\x7e\x80-\xff]*+)?")
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[\t\x20-\x7e\x80-\xff]*+")
_BROKEN = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)")

MAX_LINE = 256
MAX_EXTENSIONS = 4096
"""Bytes of chunk extensions in one body. Nobody uses them; floods of them were attacks."""
MAX_TRAILERS = 8192

LAST_CHUNK = b"0\r\n\r\n"


class ChunkError(Exception):
    """The chunked framing is malformed."""


class ChunkReader:
    """Takes bytes as they arrive, gives back the body's data.

    Attributes:
        done: The last chunk and its trailers were read.
        chunks: How many chunks with data were read to their end.
        surplus: What came after the end.
    """

    __slots__ = ("_extensions", "_left", "_line", "_part", "_trailers", "chunks", "done", "surplus")

    def __init__(self) -> None:
        self.done = False
        self.chunks = 0
        self.surplus = b""
        self._left = 0
        self._line = b""
        self._part = _SIZE
        self._extensions = 0
        self._trailers = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Return the data in these bytes; empty pieces never.

        Raises:
            ChunkError: If the framing is wrong. Nothing of these bytes may be used then.
        """
        pieces: list[bytes] = []
        position, size = 0, len(data)
        while position < size and not self.done:
            if self._part is _DATA:
                piece = data[position : position + self._left]
                pieces.append(piece)
                position += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._part = _DATA_END
                continue
            end = data.find(b"\n", position, position + MAX_LINE + 2)
            if end < 0:
                self._line += data[position:]
                self._check_line_so_far()
                return pieces
            line = self._line + data[position : end + 1]
            self._line = b""
            position = end + 1
            if line[-2:] != b"\r\n" or len(line) > self._longest + 2:
                raise ChunkError("a line of the chunked framing is too long or not ended by CRLF")
            self._take_line(line[:-2])
        if self.done:
            self.surplus = data[position:]
        return pieces

    @property
    def _longest(self) -> int:
        return 0 if self._part is _DATA_END else MAX_LINE

    def _check_line_so_far(self) -> None:
        line = self._line
        whole = line.removesuffix(b"\r")
        if len(whole) > self._longest or _BROKEN.search(line):
            raise ChunkError("a line of the chunked framing is too long or not ended by CRLF")

    def _take_line(self, line: bytes) -> None:
        if self._part is _SIZE:
            match = _SIZE_LINE.fullmatch(line)
            if match is None:
                raise ChunkError("a chunk's size is malformed")
            if match.group(2) is not None:
                self._extensions += len(match.group(2))
                if self._extensions > MAX_EXTENSIONS:
                    raise ChunkError("there are too many chunk extensions")
            self._left = int(match.group(1), 16)
            self._part = _DATA if self._left else _TRAILERS
        elif self._part is _DATA_END:
            self.chunks += 1
            self._part = _SIZE
        elif not line:
            self.done = True
        else:
            self._trailers += len(line)
            if self._trailers > MAX_TRAILERS or _TRAILER.fullmatch(line) is None:
                raise ChunkError("a trailer field is malformed, or there are too many")


_SIZE, _DATA, _DATA_END, _TRAILERS = "size", "data", "data end", "trailers"


def frame(pieces: list[bytes], *, last: bool) -> bytes:
    """Return these pieces as one chunk, and the last chunk after it if the body ends here."""
    data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    if not data:
        return LAST_CHUNK if last else b""
    if last:
        return b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)
    return b"%x\r\n%b\r\n" % (len(data), data)

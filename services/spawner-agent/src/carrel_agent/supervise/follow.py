"""Following what a server prints, while somebody looks on."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from io import FileIO
from pathlib import Path

from carrel_agent.supervise.logs import ServerLogs, clean

LOOK_SECONDS = 0.25
MAX_BYTES = 256 * 1024
"""How much is sent at once; a line that is longer is cut."""


async def follow(
    logs: ServerLogs, server_id: str, lines: int, *, ended: Callable[[], bool]
) -> AsyncIterator[bytes]:
    """Yield the last lines, then each new one, each with its line break.

    Args:
        ended: Whether the server prints nothing more. What it printed until then still comes.
    """
    ring = _Ring(logs.ring(server_id))
    try:
        ring.skip_to_end()
        tail = await asyncio.to_thread(logs.tail, server_id, lines)
        yield "".join(f"{line}\n" for line in tail).encode()
        while True:
            over = ended()
            text = await asyncio.to_thread(ring.read_lines, last=over)
            if text:
                yield text
            elif over:
                return
            if not over:
                # After much as well: what is printed without end is not to keep the agent busy.
                await asyncio.sleep(LOOK_SECONDS)
    finally:
        ring.close()


class _Ring:
    """Reads a ring of two files as it is written: when the first is full it is put aside."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: FileIO | None = None
        self._rest = b""

    def skip_to_end(self) -> None:
        """Pass over what is there."""
        self._file = _opened(self._path)
        if self._file is not None:
            self._file.seek(0, os.SEEK_END)

    def read_lines(self, *, last: bool) -> bytes:
        """Return what was printed since, whole lines only unless it is the last of all."""
        data = self._rest + self._read()
        end = len(data) if last else data.rfind(b"\n") + 1
        if not end and len(data) > MAX_BYTES:
            end = len(data)  # a line without an end
        self._rest = data[end:]
        lines = data[:end].decode("utf-8", "replace").splitlines()
        return "".join(f"{clean(line)}\n" for line in lines).encode()

    def _read(self) -> bytes:
        if self._file is None:
            self._file = _opened(self._path)
        if self._file is None:
            return b""
        if data := self._file.read(MAX_BYTES):
            return data
        own = os.fstat(self._file.fileno()).st_ino
        if _inode(self._path) == own:
            return b""
        # Put aside: read to its end, so go on with the one after it. That is the latest, or the
        # one before if two were filled meanwhile.
        older = Path(f"{self._path}.1")
        following = self._path if _inode(older) == own else older
        self.close()
        self._file = _opened(following)
        return b"" if self._file is None else self._file.read(MAX_BYTES)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _opened(path: Path) -> FileIO | None:
    try:
        return path.open("rb", buffering=0)
    except FileNotFoundError:
        return None


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0

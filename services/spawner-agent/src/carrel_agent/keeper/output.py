"""What servers print: one FIFO each, read into a ring of two files.

Server and keeper each hold the FIFO open for reading *and* writing. So a server never gets EPIPE
and the keeper never reads an end, whichever of them dies; a new keeper opens the FIFOs it finds
and reads on. A server that prints faster than it is read has to wait, as with any pipe.
"""

# pathlib costs a megabyte, an eighth of what the keeper needs.
# ruff: noqa: PTH104, PTH108, PTH208

import contextlib
import os
import re
import stat

from carrel_agent.keeper.console import say

RING_FILE_BYTES = 1 << 20
"""A ring is two files of at most this size, the older with `.1` to its name."""
BYTES_A_TURN = 64 * 1024
"""How much of one server is read before the others, and the agent, get their turn."""
DRAIN_TURNS = 4
BYTES_A_SECOND = 8 << 20
"""How much of one server is read for long: what is read is written to the disk of all of them."""
BYTES_AT_ONCE = 2 << 20
"""How much of it comes without delay."""
LEAST_COUNTED = 4096
"""To read a byte is as much work as this."""

_ID = re.compile(r"[0-9a-f]{1,32}")


class OutputError(Exception):
    """A server's output cannot be kept; the message says why."""


class Pace:
    """How fast one server's output is read."""

    def __init__(self, now: float) -> None:
        self._left = float(BYTES_AT_ONCE)
        self._at = now

    def rest_after(self, size: int, now: float) -> float:
        """Return for how many seconds nothing is to be read, after so many bytes."""
        gained = max(0.0, now - self._at) * BYTES_A_SECOND
        self._left = min(self._left + gained, BYTES_AT_ONCE) - max(size, LEAST_COUNTED)
        self._at = now
        return max(0.0, -self._left / BYTES_A_SECOND)


class Output:
    """The output of one server."""

    def __init__(self, directory: str, log_id: str, now: float = 0.0) -> None:
        self.pace = Pace(now)
        self._fifo = f"{directory}/{log_id}.fifo"
        self._ring = f"{directory}/{log_id}.log"
        self._file = -1
        self._size = 0
        self._complained = False
        with contextlib.suppress(FileExistsError):
            os.mkfifo(self._fifo, 0o600)
        self.descriptor = self._open(os.O_NONBLOCK)

    def _open(self, flags: int) -> int:
        descriptor = os.open(self._fifo, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | flags)
        if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OutputError(f"{self._fifo} is no FIFO; remove it")
        return descriptor

    def open_for_server(self) -> int:
        """Return a descriptor for the server.

        It is opened anew: one shared with the keeper would let the server make the keeper block.
        """
        return self._open(0)

    def read_some(self) -> int:
        """Move at most one turn's bytes into the ring; return how many there were."""
        try:
            data = os.read(self.descriptor, BYTES_A_TURN)
        except BlockingIOError:
            return 0
        if data:
            self._append(data)
        return len(data)

    def drain(self) -> None:
        """Read what is there now, within reason."""
        for _ in range(DRAIN_TURNS):
            if not self.read_some():
                return

    def _append(self, data: bytes) -> None:
        try:
            if self._file < 0:
                self._open_ring()
            if self._size + len(data) > RING_FILE_BYTES:
                os.close(self._file)
                self._file = -1
                os.rename(self._ring, f"{self._ring}.1")
                self._open_ring()
            os.write(self._file, data)
            self._size += len(data)
        except OSError as error:
            # Lost lines are better than servers that wait for a disk with room.
            if not self._complained:
                self._complained = True
                say("output_lost", level="ERROR", path=self._ring, error=error.strerror)

    def _open_ring(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.open(self._ring, flags, 0o600)
        self._size = os.fstat(self._file).st_size

    def clear(self) -> None:
        """Forget what was printed so far, waiting lines included."""
        with contextlib.suppress(BlockingIOError):
            for _ in range(DRAIN_TURNS):
                os.read(self.descriptor, BYTES_A_TURN)
        self._close_ring()
        for path in (self._ring, f"{self._ring}.1"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def _close_ring(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def close(self, *, remove: bool) -> None:
        """Stop reading; with `remove` the FIFO goes too. The ring stays either way."""
        self.drain()
        self._close_ring()
        os.close(self.descriptor)
        if remove:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._fifo)


def check_id(log_id: object) -> str:
    """Return `log_id` if it may be part of a file's name.

    Raises:
        OutputError: If not.
    """
    if not isinstance(log_id, str) or not _ID.fullmatch(log_id):
        raise OutputError(f"{log_id!r} is no server's id")
    return log_id


def left_over(directory: str) -> list[str]:
    """Return the ids whose FIFOs an earlier keeper left."""
    names = sorted(os.listdir(directory))
    return [n.removesuffix(".fifo") for n in names if n.endswith(".fifo")]

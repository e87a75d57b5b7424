"""Lines on their way to a descriptor that may be slow, full or dead, without anybody waiting.

A log that is piped to something that stopped reading, or written to a full disk, must not stop the
service: what cannot be kept is left out, and counted.
"""

import contextlib
import os
import select
import threading
from collections import deque

MOST_WAITING = 1024 * 1024
"""Bytes that wait at most."""
LAST_LINES_SECONDS = 1.0
"""How long the end of a process waits for its last lines."""
_FULL_SECONDS = 0.2


class LineWriter:
    """Writes from a thread of its own, begun with the first line. Takes the place of a text file.

    Attributes:
        left_out: Lines that were not written, since the start.
    """

    def __init__(self, descriptor: int, most_waiting: int = MOST_WAITING) -> None:
        self._descriptor = descriptor
        self._most = most_waiting
        self._begin()
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        """Begin empty: a child has its parent's memory, but not its thread."""
        self.left_out = 0
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._lock = threading.Lock()
        self._some = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._thread: threading.Thread | None = None

    def write(self, text: str) -> int:
        """Take whole lines. Returns at once."""
        data = text.encode("utf-8", "backslashreplace")
        with self._lock:
            if self._size + len(data) > self._most:
                self.left_out += 1
                return 0
            self._waiting.append(data)
            self._size += len(data)
            self._idle.clear()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="lines", daemon=True)
                self._thread.start()
        self._some.set()
        return len(text)

    def flush(self) -> None:
        """Do nothing: it is written as soon as it can be."""

    def settle(self, seconds: float) -> bool:
        """Wait until everything is written, but no longer than this; False if it is not."""
        return self._idle.wait(seconds)

    def _run(self) -> None:
        while True:
            self._some.wait()
            self._some.clear()
            with self._lock:
                lines, self._waiting = self._waiting, deque()
            self._write(b"".join(lines), len(lines))
            with self._lock:
                self._size -= sum(map(len, lines))
                if not self._waiting:
                    self._idle.set()

    def _write(self, data: bytes, lines: int) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:  # somebody made the descriptor so
                with contextlib.suppress(OSError):
                    select.select([], [self._descriptor], [], _FULL_SECONDS)
            except OSError:  # a full disk, a reader that is gone
                self.left_out += lines
                return

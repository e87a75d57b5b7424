"""The merged log: services append to it by themselves, `carrel up` reads it and prints.

Services write to the file and not to a pipe, so the end of `carrel up` breaks nobody's output.
"""

import contextlib
import os
import sys
from pathlib import Path

from carrel_shared.clock import Clock

MAX_BYTES = 20 * 1024 * 1024
_CHUNK = 256 * 1024
# What could move the cursor or set the title of a terminal is not printed as it is.
_UNPRINTABLE = bytes(set(range(32)) - {9, 10}) + b"\x7f"


class MergedLog:
    """`carrel.log`, and how much of it was printed."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path = path
        self._clock = clock
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self.descriptor = os.open(path, flags, 0o600)
        self._printed = os.fstat(self.descriptor).st_size
        self._rest = b""

    def write(self, event: str, *, warning: bool = False) -> None:
        """Add a line of our own, in the form the services use."""
        stamp = self._clock.now().strftime("%H:%M:%S")
        level = "WARNING" if warning else "INFO"
        os.write(self.descriptor, f"{stamp} {'up':<6} {level:<7} {event}\n".encode())

    def print_new(self) -> None:
        """Print the lines that were added since the last time; start anew when it is too big."""
        size = os.fstat(self.descriptor).st_size
        while self._printed < size:
            chunk = os.pread(self.descriptor, min(_CHUNK, size - self._printed), self._printed)
            if not chunk:
                break
            self._printed += len(chunk)
            lines, newline, self._rest = (self._rest + chunk).rpartition(b"\n")
            say_bytes((lines + newline).translate(None, _UNPRINTABLE))
            if len(self._rest) > _CHUNK:
                self._rest = b""
        if size > MAX_BYTES:
            self._start_anew()

    def _start_anew(self) -> None:
        """Keep a copy and empty the file: its writers append, so they go on at the beginning."""
        old = self.path.with_name(self.path.name + ".1")
        with contextlib.suppress(FileNotFoundError):
            old.unlink()
        target = os.open(old, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            offset = 0
            while sent := os.sendfile(target, self.descriptor, offset, _CHUNK):
                offset += sent
        finally:
            os.close(target)
        os.ftruncate(self.descriptor, 0)
        self._printed, self._rest = 0, b""

    def close(self) -> None:
        os.close(self.descriptor)


def say(text: str) -> None:
    """Tell the person at the console, and nobody else: this does not go into the log."""
    say_bytes(text.encode() + b"\n")


def say_bytes(raw: bytes) -> None:
    """Write to standard output; a terminal that has gone away is no reason to end."""
    try:
        while raw:
            raw = raw[os.write(1, raw) :]
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)


def complain(text: str) -> None:
    """Tell the person at the console about a failure."""
    with contextlib.suppress(OSError):
        print(f"carrel: {text}", file=sys.stderr, flush=True)

"""One `carrel up` for one state directory."""

import contextlib
import fcntl
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

_TRIES = 5
_BETWEEN_TRIES = 0.02  # seconds; `read_holder` in another process holds the lock for an instant


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds the lock, as it wrote down itself."""

    pid: int
    url: str
    run: str


class StateLock:
    """An flock that ends with this process, whatever ends it. Services do not inherit it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Take the lock; False if another process holds it."""
        descriptor = os.open(
            self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        for _ in range(_TRIES):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._descriptor = descriptor
                return True
            time.sleep(_BETWEEN_TRIES)
        os.close(descriptor)
        return False

    def describe(self, holder: Holder) -> None:
        """Write down who holds it, for `read_holder`."""
        assert self._descriptor is not None  # noqa: S101 - acquired before
        text = json.dumps({"pid": holder.pid, "url": holder.url, "run": holder.run}).encode()
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, text, 0)

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def read_holder(path: Path) -> tuple[Holder | None, bool]:
    """Return who last held the lock, if that can be read, and whether it is held now."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None, False
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            held = False
        except BlockingIOError:
            held = True
        holder = None
        with contextlib.suppress(ValueError, KeyError, TypeError):
            holder = Holder(**json.loads(os.pread(descriptor, 65536, 0)))
        return holder, held
    finally:
        os.close(descriptor)

"""One hub on one SQLite database: a lock that lives as long as its process."""

import fcntl
import os
from pathlib import Path
from types import TracebackType

LOCK_FILE = "hub.lock"


class AnotherHubError(Exception):
    """Another hub has the database; the message names it."""


class HubLock:
    """Holds the lock of a state directory between `with` and its end, or the process's."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / LOCK_FILE
        self._descriptor: int | None = None

    def __enter__(self) -> "HubLock":
        """Take the lock.

        Raises:
            AnotherHubError: Somebody has it, or the file cannot be made.
        """
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise AnotherHubError(f"{self._path}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip()
            os.close(descriptor)
            named = f" (process {holder})" if holder.isdigit() else ""
            raise AnotherHubError(
                f"another hub{named} uses the database in {self._path.parent}: stop it first;"
                " SQLite is for one hub, several need PostgreSQL"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        self._descriptor = descriptor
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

"""Who runs and how the last reload went, written down for `carrel-proxy reload` and for people."""

import json
import os
from typing import Any


class Standing:
    """The file. Without a path there is none.

    Attributes:
        reloads: How many have ended, well or not.
        error: Why the last one failed; None if it did not.
    """

    def __init__(self, path: str) -> None:
        self.reloads = 0
        self.error: str | None = None
        self._path = path

    def write(self, generation: int) -> str | None:
        """Replace the file; return what is wrong if it cannot be."""
        if not self._path:
            return None
        document = {
            "pid": os.getpid(),
            "start_ticks": start_ticks(os.getpid()),
            "generation": generation,
            "reloads": self.reloads,
            "error": self.error,
        }
        new = f"{self._path}.new"
        try:
            with open(new, "w", opener=_private) as file:
                json.dump(document, file)
            os.replace(new, self._path)  # noqa: PTH105
        except OSError as error:
            return f"{self._path}: {error.strerror}"
        return None


def who_runs(path: str) -> dict[str, Any] | None:
    """Return what the file says of a proxy that runs; None if there is none."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            status: dict[str, Any] = json.load(file)
        if start_ticks(status["pid"]) == status["start_ticks"]:
            return status
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def start_ticks(pid: int) -> int:
    """Return when a process began, which with its id names it for ever.

    Raises:
        OSError: If there is none, or it has ended and only waits for somebody to hear of it.
    """
    with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
        fields = file.read().rpartition(b")")[2].split()
    if fields[0] == b"Z":
        raise ProcessLookupError(f"process {pid} has ended")
    return int(fields[19])


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)

"""Who runs and how the last reload went, written down for `carrel-proxy reload` and for people."""

import json
import os


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


def start_ticks(pid: int) -> int:
    """Return when a process began, which with its id names it for ever.

    Raises:
        OSError: If there is none.
    """
    with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
        return int(file.read().rpartition(b")")[2].split()[19])


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)

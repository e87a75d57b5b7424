"""Reading what servers printed, which the keeper keeps in a ring of two files."""

import contextlib
import os
import re
from pathlib import Path

MAX_LINE = 500
_CHUNK = 256 * 1024
_ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|[@-Z\\-_])")


class ServerLogs:
    """Reads the rings below `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def ring(self, server_id: str) -> Path:
        """Return where the latest output of a server is; what is older is in `.1` beside it."""
        return self._directory / f"{server_id}.log"

    def tail(self, server_id: str, lines: int) -> list[str]:
        """Return the last lines a server printed, made safe to show."""
        ring = self.ring(server_id)
        text = _last_bytes(ring)
        if text.count(b"\n") < lines and len(text) < _CHUNK:
            text = _last_bytes(Path(f"{ring}.1")) + text
        return [clean(line) for line in text.decode("utf-8", "replace").splitlines()[-lines:]]

    def remove(self, server_id: str) -> None:
        """Delete what a server printed."""
        for suffix in (".log", ".log.1"):
            (self._directory / f"{server_id}{suffix}").unlink(missing_ok=True)

    def open_fifos(self) -> set[str]:
        """Return the servers whose output the keeper waits for."""
        return {path.stem for path in self._directory.glob("*.fifo")}


def clean(line: str) -> str:
    """Return a line without terminal escapes and control characters, at most `MAX_LINE` long."""
    plain = line
    if not line.isprintable():
        plain = _ESCAPES.sub("", line).replace("\t", "    ")
        plain = "".join(c for c in plain if c.isprintable())
    return plain if len(plain) <= MAX_LINE else plain[: MAX_LINE - 1] + "…"


def _last_bytes(path: Path) -> bytes:
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - _CHUNK))
        return file.read(_CHUNK)
    return b""

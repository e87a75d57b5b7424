"""What lies beside the database and restoring needs: the keys in the hub's state directory."""

import base64
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from carrel_hub.backup.archive import BackupError
from carrel_shared.files import write_atomically

_LEFT_OUT = (".sqlite", ".sqlite-wal", ".sqlite-shm", ".sqlite-journal", ".lock", ".sock")
"""The database itself, and what belongs to a running process."""

_LARGEST = 1 << 20
"""Keys and certificates are small; what is larger is something else that was left there."""


def files_of(state_dir: Path) -> Iterator[dict[str, Any]]:
    """Yield a line for every file to keep.

    Raises:
        OSError: One cannot be read.
    """
    for path in sorted(state_dir.rglob("*")):
        status = path.lstat()
        if (
            stat.S_ISREG(status.st_mode)
            and not path.name.endswith(_LEFT_OUT)
            and not path.name.startswith(".")
            and status.st_size <= _LARGEST
        ):
            content = base64.b64encode(path.read_bytes()).decode("ascii")
            yield {"file": path.relative_to(state_dir).as_posix(), "content": content}


def differing(state_dir: Path, files: Mapping[str, bytes]) -> list[str]:
    """Return the files that are there already and are others.

    Raises:
        BackupError: A name leads out of the directory.
    """
    return [
        name
        for name, content in files.items()
        if (path := _path(state_dir, name)).exists() and path.read_bytes() != content
    ]


def put_files(state_dir: Path, files: Mapping[str, bytes]) -> None:
    """Put the files where they were, for the hub alone to read.

    Raises:
        BackupError: A name leads out of the directory.
        OSError: One cannot be written.
    """
    for name, content in files.items():
        path = _path(state_dir, name)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(path, content, mode=0o600)


def _path(state_dir: Path, name: str) -> Path:
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts or not relative.parts:
        raise BackupError(f"the backup names a file {name!r}, which lies elsewhere")
    return state_dir / relative

"""Files that are either the old one or the new one, whatever is killed when."""

import contextlib
import os
import secrets
from pathlib import Path


def write_atomically(path: Path, *data: bytes, mode: int = 0o600) -> None:
    """Replace `path` by `data`, durably: written aside, synced, renamed, directory synced.

    Args:
        data: What the file has in it, one after another.

    Raises:
        OSError: If the directory cannot be written. The old file is then untouched.
    """
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(data)
            file.flush()
            os.fsync(file.fileno())
        aside.rename(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            aside.unlink()
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

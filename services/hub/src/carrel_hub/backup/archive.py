"""The file of a backup: gzipped lines of JSON between a head and an end.

    {"carrel-backup": 1, "revision": "0004", "made_at": ..., "version": ...}
    {"file": "cookie.key", "content": BASE64}
    {"table": "users", "row": {...}}
    {"end": 1234}

The end counts the lines before it, so that a file that was cut off is not taken for a whole one.
"""

import gzip
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from carrel_shared.files import sync_directory

HEAD, FORMAT = "carrel-backup", 1


class BackupError(Exception):
    """A backup cannot be made or used; the message says what is wrong and what to do."""


class Archive:
    """A backup that is being written."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.lines = 0

    def add(self, line: Mapping[str, Any]) -> None:
        """Write one line."""
        self._file.write(json.dumps(line, separators=(",", ":")))
        self._file.write("\n")
        self.lines += 1


@contextmanager
def new_archive(path: Path) -> Iterator[Archive]:
    """Write a backup, which only its owner can read, and which is there when it is whole.

    Raises:
        BackupError: There is such a file already, or it cannot be written.
    """
    if path.exists():
        raise BackupError(f"{path} is there already; nothing was written")
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as raw:
                with gzip.open(raw, "wt", encoding="utf-8") as text:
                    archive = Archive(text)
                    yield archive
                    archive.add({"end": archive.lines})
                raw.flush()
                os.fsync(raw.fileno())
            os.link(aside, path)  # which, unlike a rename, never takes another file's place
        finally:
            aside.unlink(missing_ok=True)
        sync_directory(path.parent)
    except OSError as error:
        raise BackupError(f"{path}: {error.strerror or error}") from error


def read_archive(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a backup, its head first, without its end.

    Raises:
        BackupError: It cannot be read, or is no backup, damaged, cut off, or of a newer Carrel.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            yield from _lines(path, file)
    except (gzip.BadGzipFile, zlib.error, EOFError, UnicodeDecodeError) as error:
        raise BackupError(f"{path} is no backup of Carrel's, or damaged: {error}") from error
    except OSError as error:
        raise BackupError(f"{path}: {error.strerror or error}") from error


def _lines(path: Path, file: TextIO) -> Iterator[dict[str, Any]]:
    count, ended = 0, False
    for text in file:
        try:
            line = json.loads(text)
        except ValueError as error:
            raise BackupError(f"{path} is damaged in line {count + 1}") from error
        if not isinstance(line, dict) or ended:
            raise BackupError(f"{path} is damaged in line {count + 1}")
        if count == 0 and line.get(HEAD) != FORMAT:
            known = HEAD in line
            what = "a backup of a newer Carrel" if known else "no backup of Carrel's"
            raise BackupError(f"{path} is {what}")
        if "end" in line:
            if line["end"] != count:
                raise BackupError(f"{path} is damaged: lines are missing")
            ended = True
            continue
        count += 1
        yield line
    if not ended:
        raise BackupError(f"{path} was cut off: its end is missing")

"""The journal: one file for each server, replaced whole, so that a kill leaves the old or the new.

A file that cannot be read is put aside and told of; it never keeps the agent from starting, and
the process it spoke of is left alone.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import structlog
from pydantic import ValidationError

from carrel_agent.supervise.record import Record
from carrel_shared.files import write_atomically

log = structlog.get_logger(__name__)

FORGOTTEN_LASTS = timedelta(days=7)
"""For so long a forgotten server's generation is remembered, against commands that come late."""


def is_long_forgotten(record: Record, now: datetime) -> bool:
    """Whether no late command can be about it any more."""
    since = record.requested_at if record.exit is None else record.exit.at
    return record.forgotten and now - since > FORGOTTEN_LASTS


class JournalError(Exception):
    """Something could not be made durable, so it must not be done."""


class Journal:
    """Owns the files below `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def load(self, now: datetime) -> list[Record]:
        """Return every record that can be read; drop those long forgotten, put aside the rest."""
        records = []
        for path in sorted(self._directory.iterdir()):
            if path.name.startswith("."):
                path.unlink(missing_ok=True)  # it was being written when an agent died
            elif path.suffix == ".json":
                record = self._read(path)
                if record is None:
                    continue
                if is_long_forgotten(record, now):
                    self.drop(record)
                else:
                    records.append(record)
        return records

    def _read(self, path: Path) -> Record | None:
        try:
            record = Record.model_validate_json(path.read_bytes())
            if f"{record.server_id}.json" != path.name:
                raise ValueError("it speaks of another server")
        except (OSError, ValueError, ValidationError) as error:
            aside = path.with_suffix(".corrupt")
            log.error(
                "journal_record_unreadable",
                path=str(path),
                reason=_shortly(error),
                aside=aside.name,
            )
            try:
                path.rename(aside)
            except OSError as rename_error:
                log.error("journal_record_stays", path=str(path), reason=rename_error.strerror)
            return None
        return record

    def drop(self, record: Record) -> None:
        """Remove a record."""
        self._path(record).unlink(missing_ok=True)

    def _path(self, record: Record) -> Path:
        return self._directory / f"{record.server_id}.json"

    async def save(self, record: Record) -> None:
        """Make a record durable.

        Raises:
            JournalError: If the disk does not take it.
        """
        path = self._path(record)
        data = record.model_dump_json().encode()
        try:
            await _to_its_end(write_atomically, path, data)
        except OSError as error:
            raise JournalError(
                f"the agent's journal {path} cannot be written: {error.strerror}"
            ) from error


async def _to_its_end(write: Callable[[Path, bytes], None], path: Path, data: bytes) -> None:
    """Write in a thread. Who is cancelled waits for it: the next write must not overtake it."""
    writing = asyncio.get_running_loop().run_in_executor(None, write, path, data)
    try:
        await asyncio.shield(writing)
    except asyncio.CancelledError:
        await asyncio.wait([writing])
        raise


def _shortly(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return str(error)

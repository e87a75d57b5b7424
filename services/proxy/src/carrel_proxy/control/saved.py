"""What survives a restart: the table and the verdicts, in files that only this account reads."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog
from pydantic import TypeAdapter, ValidationError

from carrel_proxy.access.verdicts import SavedVerdict, Verdicts
from carrel_proxy.control.table import Table
from carrel_proxy.errors import BadTargetError
from carrel_shared.files import write_atomically
from carrel_shared.wire.routes import RouteTable

log = structlog.get_logger(__name__)

SETTLE_SECONDS = 0.2
"""How long changes are collected after a write before they are written together."""
RETRY_SECONDS = 5.0

_VERDICTS = TypeAdapter(list[SavedVerdict])


class SavedFile:
    """Writes one file whenever told that its content has changed, but never twice at once."""

    def __init__(self, path: Path, content: Callable[[], Callable[[], bytes]]) -> None:
        """`content` is called on the event loop, what it returns in a thread."""
        self._path = path
        self._content = content
        self._changed = asyncio.Event()
        self._writing = asyncio.Lock()

    def note_change(self) -> None:
        self._changed.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._changed.wait()
            written = await self.flush()
            await asyncio.sleep(SETTLE_SECONDS if written else RETRY_SECONDS)

    async def flush(self) -> bool:
        """Write now, if there is something new; False if it could not be written."""
        async with self._writing:
            if not self._changed.is_set():
                return True
            self._changed.clear()
            content = self._content()
            try:
                await asyncio.to_thread(lambda: write_atomically(self._path, content()))
            except OSError as error:
                log.error("state_not_saved", path=str(self._path), reason=error.strerror)
                self._changed.set()
                return False
            return True


def table_file(directory: Path, table: Table) -> SavedFile:
    """Return the file that holds the routes, with their secrets."""

    def content() -> Callable[[], bytes]:
        snapshot = table.snapshot()
        return lambda: snapshot.model_dump_json().encode()

    return SavedFile(directory / "routes.json", content)


def verdicts_file(directory: Path, verdicts: Verdicts) -> SavedFile:
    """Return the file that holds who may pass, by hashes."""

    def content() -> Callable[[], bytes]:
        snapshot = verdicts.snapshot()
        return lambda: _VERDICTS.dump_json(snapshot)

    return SavedFile(directory / "verdicts.json", content)


def restore_table(directory: Path, table: Table) -> None:
    """Take up the table that was saved. What cannot be read is left out: who pushes has it all."""
    try:
        table.restore(RouteTable.model_validate_json((directory / "routes.json").read_bytes()))
    except FileNotFoundError:
        pass
    except (OSError, ValidationError, BadTargetError) as error:
        log.error("routes_not_restored", reason=_why(error))


def restore_verdicts(directory: Path, verdicts: Verdicts) -> None:
    """Take up the verdicts that were saved. What cannot be read is asked for again."""
    try:
        verdicts.restore(_VERDICTS.validate_json((directory / "verdicts.json").read_bytes()))
    except FileNotFoundError:
        pass
    except (OSError, ValidationError) as error:
        log.error("verdicts_not_restored", reason=_why(error))


def _why(error: Exception) -> str:
    """Say what is wrong with a file, but nothing of what is in it."""
    if isinstance(error, ValidationError):
        return str(error.errors(include_url=False, include_input=False)[0]["msg"])
    return str(error)

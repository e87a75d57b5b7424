"""What survives a restart: the table and the verdicts, in files that only this account reads.

A disk that is full or read-only stops nothing. What the hub says is in force and acknowledged all
the same, the log and the health check say that it is not saved, and writing is tried again. A
proxy that crashes meanwhile comes back with an older table, says so to the hub, and is sent what it
lacks.
"""

import asyncio
import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import structlog
from pydantic import TypeAdapter, ValidationError

from carrel_proxy.access.verdicts import SavedVerdict, Verdicts
from carrel_proxy.control.journal import Journal
from carrel_proxy.control.table import Table, large_heap_grows
from carrel_proxy.errors import BadTargetError, TableMismatchError
from carrel_shared.files import write_atomically
from carrel_shared.wire.routes import RouteChanges, RouteTable, UnreadableError

log = structlog.get_logger(__name__)

SETTLE_SECONDS = 0.2
"""How long changes are collected after a write before they are written together."""
RETRY_SECONDS = 5.0

_VERDICTS = TypeAdapter(list[SavedVerdict])


class Saved(ABC):
    """One file, written whenever its content has changed, but never twice at once.

    Attributes:
        ok: What is in force is also in the file, or about to be.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ok = True
        self._given_up = False
        self._changed = asyncio.Event()
        self._writing = asyncio.Lock()
        self._in_thread = threading.Lock()

    @abstractmethod
    def _work(self) -> Callable[[], None] | None:
        """Return what is to be done in a thread; None if there is nothing to write."""

    @abstractmethod
    def take_over(self) -> None:
        """Write from now on; what is in force here counts, and not what the file says."""

    def give_up(self) -> None:
        """Write no more: the file is another process's from now on."""
        self._given_up = True

    def note_change(self) -> None:
        self._changed.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            written = await self.flush()
            await asyncio.sleep(SETTLE_SECONDS if written else RETRY_SECONDS)
            if not written:
                self._changed.set()

    async def flush(self) -> bool:
        """Write now, if there is something new; False if it could not be written."""
        async with self._writing:
            work = self._work() if not self._given_up else None
            if work is None:
                return True
            try:
                await asyncio.to_thread(self._alone, work)
            except OSError as error:
                if self.ok:
                    reason = error.strerror or str(error)
                    log.error("state_not_saved", path=str(self.path), reason=reason)
                self.ok = False
                return False
            if not self.ok:
                log.info("state_saved_again", path=str(self.path))
            self.ok = True
            return True

    def _alone(self, work: Callable[[], None]) -> None:
        """A thread goes on when whoever waits for it is cancelled."""
        with self._in_thread:
            work()


class SavedTable(Saved):
    """The routes, with their secrets: a journal of what the hub sent.

    Each change is added before it is acknowledged. The whole is written when there is a new one,
    when the changes have outgrown it, and when something could not be written.
    """

    def __init__(self, directory: Path, table: Table) -> None:
        self._journal = Journal(directory / "routes.journal")
        super().__init__(self._journal.path)
        self._table = table
        self._whole: bytes | None = None
        self._changes: list[bytes] = []
        self._behind = False

    def restore(self) -> None:
        """Take up what was saved, as far as it can be read; the hub has it all.

        From then on, what the table takes is saved.
        """
        with large_heap_grows():
            records = self._journal.read()
            try:
                if records:
                    self._table.restore(RouteTable.read(records[0]))
                for record in records[1:]:
                    self._table.restore_change(RouteChanges.read(record))
            except (UnreadableError, BadTargetError, TableMismatchError) as error:
                log.error("routes_not_restored", path=str(self.path), reason=_why(error))
                self._behind = True
        status = self._table.status
        if records:
            log.info("routes_restored", routes=status.routes, number=status.number)
        if records and self._journal.is_broken:
            self._behind = True
        if self._behind:
            self.note_change()
        self._follow_table()

    def take_over(self) -> None:
        self._given_up = False
        self._behind = True
        self.note_change()
        self._follow_table()

    def _follow_table(self) -> None:
        self._table.keep_whole = self._keep_whole
        self._table.keep_change = self._keep_change

    def _keep_whole(self, record: bytes) -> None:
        """Write this, and not what was still to be written before it."""
        self._whole, self._changes = record, []
        self.note_change()

    def _keep_change(self, record: bytes) -> None:
        self._changes.append(record)
        self.note_change()

    def _work(self) -> Callable[[], None] | None:
        whole, changes = self._whole, self._changes
        grown = self._journal.is_overgrown
        if whole is None and not changes and not grown and not self._behind:
            return None
        self._whole, self._changes = None, []
        if whole is None and (grown or self._behind or self._journal.is_broken):
            snapshot = self._table.snapshot()
            return lambda: self._replace(snapshot)
        self._behind = True
        return lambda: self._write(whole, changes)

    def _replace(self, snapshot: RouteTable) -> None:
        self._behind = True
        self._journal.replace(snapshot.json())
        self._behind = False

    def _write(self, whole: bytes | None, changes: list[bytes]) -> None:
        if whole is not None:
            self._journal.replace(whole)
        if changes:
            self._journal.append(changes)
        self._behind = False


class SavedVerdicts(Saved):
    """Who may pass, by hashes.

    If it cannot be written it is removed: it would let in, after a crash, whom the hub has locked
    out since.
    """

    def __init__(self, directory: Path, verdicts: Verdicts) -> None:
        super().__init__(directory / "verdicts.json")
        self._verdicts = verdicts
        self._dirty = False

    def restore(self) -> None:
        """Take up what was saved. From then on, what is decided is saved."""
        try:
            self._verdicts.restore(_VERDICTS.validate_json(self.path.read_bytes()))
        except FileNotFoundError:
            pass
        except (OSError, ValidationError) as error:
            log.error("verdicts_not_restored", reason=_why(error))
        self._verdicts.on_change = self.note_change

    def take_over(self) -> None:
        """Others' verdicts are in the file alone, so they are taken up first."""
        self._given_up = False
        self.restore()
        self.note_change()

    def note_change(self) -> None:
        self._dirty = True
        super().note_change()

    def _work(self) -> Callable[[], None] | None:
        if not self._dirty:
            return None
        self._dirty = False
        snapshot = self._verdicts.snapshot()
        return lambda: self._write(snapshot)

    def _write(self, snapshot: list[SavedVerdict]) -> None:
        try:
            write_atomically(self.path, _VERDICTS.dump_json(snapshot))
        except OSError:
            self._dirty = True
            with contextlib.suppress(OSError):
                self.path.unlink()
            raise


class SavedFiles:
    """All that one proxy keeps."""

    def __init__(self, *files: Saved) -> None:
        self._files = files

    @property
    def ok(self) -> bool:
        """Whether what is in force would be so after a crash."""
        return all(file.ok for file in self._files)

    def take_over(self) -> None:
        """Write from now on; what is in force here counts, and not what the files say."""
        for file in self._files:
            file.take_over()

    def give_up(self) -> None:
        """Write no more: the files are another process's from now on."""
        for file in self._files:
            file.give_up()

    async def flush(self) -> bool:
        """Write what has changed; False if that is not possible."""
        return all([await file.flush() for file in self._files])

    async def run(self) -> None:
        """Write until cancelled."""
        async with asyncio.TaskGroup() as group:
            for file in self._files:
                group.create_task(file.run())


def _why(error: Exception) -> str:
    """Say what is wrong with a file, but nothing of what is in it."""
    if isinstance(error, ValidationError):
        return str(error.errors(include_url=False, include_input=False)[0]["msg"])
    return str(error)

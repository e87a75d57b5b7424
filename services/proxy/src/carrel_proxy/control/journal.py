"""A file of numbered states: one whole record, and the changes that follow it.

Each line is a record: its CRC-32 in eight hex digits, a space, JSON. The first is whole, each later
one follows the one before. So a change costs a line, a restart reads one file, and a person can
read it too. What the records say is their owner's business.

Whatever was killed when, reading gives the whole record and an unbroken run of what followed: a
line counts when it ends and its sum is right, and nothing counts after one that does not.
"""

import contextlib
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import structlog

from carrel_shared.files import write_atomically

log = structlog.get_logger(__name__)

LEAST_LOG = 64 * 1024
"""Bytes of changes that are kept however short the whole record is."""
DAMAGED = ".damaged"
"""Ends the name under which a file is kept that was damaged, for somebody to look at."""

_SUM = 9  # eight digits and a space


class Journal:
    """One such file. The calls block; they are made one at a time, in a thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._size: int | None = None  # of the file as we know it; None if it is not to be trusted
        self._whole = 0

    def read(self) -> list[bytes]:
        """Return the whole record and what follows it; nothing if there is none.

        Raises no error, for what is lost must not keep anything from starting. A last line that is
        torn is what a crash leaves: it was never acknowledged. Anything else that is wrong is
        logged, and the file is kept aside.
        """
        self._size = None
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            log.error("state_unreadable", path=str(self.path), reason=error.strerror)
            return []
        records, good = read_lines(data)
        if records and good == len(data):
            self._size, self._whole = good, _SUM + len(records[0]) + 1
        elif records and b"\n" not in data[good:]:
            log.info("state_torn", path=str(self.path), records=len(records))
        else:
            self._keep_aside(len(records))
        return records

    def replace(self, record: bytes) -> None:
        """Hold this whole record alone: the old file or the new one, whatever happens when.

        Raises:
            OSError: If it cannot be written. The file is then as it was.
        """
        line = _line(record)
        write_atomically(self.path, *line)
        self._size = self._whole = sum(map(len, line))

    def append(self, records: Sequence[bytes]) -> None:
        """Add what follows, durably, all of it or nothing.

        Raises:
            OSError: If it cannot be written, or the file is not the one that was written last.
                Only `replace` helps then.
        """
        data = b"".join(part for record in records for part in _line(record))
        known, self._size = self._size, None
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if known is None or os.fstat(descriptor).st_size != known:
                raise OSError(0, "the file is not as it was left")
            try:
                _write(descriptor, data)
                os.fdatasync(descriptor)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, known)
                raise
        finally:
            os.close(descriptor)
        self._size = known + len(data)

    @property
    def is_broken(self) -> bool:
        """Nothing can follow: `replace` comes next."""
        return self._size is None

    @property
    def is_overgrown(self) -> bool:
        """The changes have become longer than what they change: `replace` would shorten it."""
        return (self._size or 0) - self._whole > max(self._whole, LEAST_LOG)

    def _keep_aside(self, records: int) -> None:
        aside = self.path.with_name(self.path.name + DAMAGED)
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
            aside.hardlink_to(self.path)  # the next `replace` makes a new file
        log.error("state_damaged", path=str(self.path), kept=str(aside), records_read=records)


def read_lines(data: bytes) -> tuple[list[bytes], int]:
    """Return the records up to the first that is not right, and how many bytes they take."""
    records: list[bytes] = []
    start = 0
    while (end := data.find(b"\n", start)) >= 0:
        record = data[start + _SUM : end]
        if data[start : start + _SUM] != b"%08x " % zlib.crc32(record):
            break
        records.append(record)
        start = end + 1
    return records, start


def _line(record: bytes) -> tuple[bytes, bytes, bytes]:
    """Return the parts of a record's line; it may be large, so they are not put together here."""
    record = record.replace(b"\n", b" ")  # in JSON a line feed is never more than a space
    return b"%08x " % zlib.crc32(record), record, b"\n"


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]

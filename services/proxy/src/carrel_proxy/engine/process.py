"""What this process uses of its machine, from `/proc` (proc(5)) and getrusage(2)."""

import os
import resource
from datetime import datetime, timedelta
from pathlib import Path

from carrel_shared.clock import Clock
from carrel_shared.wire.counters import ProcessUse

_PAGE = resource.getpagesize()
_STAT_START = 21
"""Index of `starttime`: field 22, in clock ticks after boot."""


def process_use(clock: Clock) -> ProcessUse:
    """Return what this process uses now. What cannot be read is 0."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    pages = _numbers("/proc/self/statm")
    return ProcessUse(
        cpu_user_seconds=usage.ru_utime,
        cpu_system_seconds=usage.ru_stime,
        virtual_bytes=pages[0] * _PAGE,
        resident_bytes=pages[1] * _PAGE,
        open_descriptors=_open_descriptors(),
        most_descriptors=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        started_at=started_at(clock),
    )


def started_at(clock: Clock) -> datetime:
    """Return when this process began."""
    try:
        # The name of the program, which may hold anything, ends with the last parenthesis.
        after_name = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        ticks = int(after_name[_STAT_START - 2])
        up_seconds = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return clock.now()
    age = up_seconds - ticks / os.sysconf("SC_CLK_TCK")
    return clock.now() - timedelta(seconds=max(age, 0))


def _numbers(path: str) -> list[int]:
    try:
        return [int(text) for text in Path(path).read_text().split()]
    except (OSError, ValueError):
        return [0, 0]


def _open_descriptors() -> int:
    try:
        return len(list(Path("/proc/self/fd").iterdir())) - 1  # one is the listing's own
    except OSError:
        return 0

"""Setting and reading one controller of one group, in either version of the kernel's interface.

The files are those of Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst.
"""

import contextlib
import errno
import os
from pathlib import Path

CPU_PERIOD_MICROSECONDS = 100_000
MOST_AT_ONCE = 65536
NO_LIMIT_V1 = 1 << 60
"""Version 1 has a number, near 2**63, for no limit of memory."""


class LimitNotSetError(Exception):
    """The kernel did not take a limit; the message says which, and why."""


def read_text(path: Path) -> str | None:
    """Return a control file's text, or None where this kernel has no such file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # Read for each limited server every few seconds, so without a file object.
            parts = list(iter(lambda: os.read(descriptor, MOST_AT_ONCE), b""))
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
            return None
        raise
    return b"".join(parts).decode("ascii").strip()


def read_number(path: Path) -> int | None:
    """Return a control file's number; None for "max", or where there is no such file."""
    text = read_text(path)
    return int(text) if text and text.isdigit() else None


def read_table(path: Path) -> dict[str, int]:
    """Return a control file of `name number` lines."""
    words = (line.split() for line in (read_text(path) or "").splitlines())
    return {w[0]: int(w[1]) for w in words if len(w) == 2 and w[1].isdigit()}


def write(path: Path, value: object) -> None:
    """Write a control file that the kernel made."""
    with path.open("r+", encoding="ascii") as file:
        file.write(str(value))


def _write_if_there(path: Path, value: object) -> None:
    with contextlib.suppress(FileNotFoundError):
        write(path, value)


# -- memory


def set_memory_v2(group: Path, limit: int | None) -> None:
    """Limit memory, and leave no swap to get around that."""
    write(group / "memory.max", "max" if limit is None else limit)
    _write_if_there(group / "memory.swap.max", "max" if limit is None else 0)


def set_memory_v1(group: Path, limit: int | None) -> None:
    """Limit memory, and memory with swap to the same where the kernel counts swap."""
    value = -1 if limit is None else limit
    plain, both = group / "memory.limit_in_bytes", group / "memory.memsw.limit_in_bytes"
    before = read_number(plain)
    # The second may never be below the first, so raising begins with it.
    raised = limit is None or (before is not None and limit > before)
    for path in (both, plain) if raised else (plain, both):
        _write_if_there(path, value) if path == both else write(path, value)


def memory_use_v2(group: Path) -> int | None:
    """Return the bytes in use, without file pages that nobody used lately."""
    used = read_number(group / "memory.current")
    idle = read_table(group / "memory.stat").get("inactive_file", 0)
    return None if used is None else max(0, used - idle)


def memory_use_v1(group: Path) -> int | None:
    """Return the bytes in use, without file pages that nobody used lately."""
    used = read_number(group / "memory.usage_in_bytes")
    idle = read_table(group / "memory.stat").get("total_inactive_file", 0)
    return None if used is None else max(0, used - idle)


def memory_peak(group: Path) -> int | None:
    """Return the most that was in use, where the kernel keeps that."""
    peak = read_number(group / "memory.peak")
    return read_number(group / "memory.max_usage_in_bytes") if peak is None else peak


def memory_kills(group: Path, version: int) -> int:
    """Return how many processes were killed for memory."""
    name = "memory.oom_control" if version == 1 else "memory.events"
    return read_table(group / name).get("oom_kill", 0)


# -- processor time


def set_cpu_v2(group: Path, cores: float | None) -> None:
    """Limit processor time."""
    quota = "max" if cores is None else round(cores * CPU_PERIOD_MICROSECONDS)
    write(group / "cpu.max", f"{quota} {CPU_PERIOD_MICROSECONDS}")


def set_cpu_v1(group: Path, cores: float | None) -> None:
    """Limit processor time."""
    write(group / "cpu.cfs_period_us", CPU_PERIOD_MICROSECONDS)
    quota = -1 if cores is None else round(cores * CPU_PERIOD_MICROSECONDS)
    write(group / "cpu.cfs_quota_us", quota)


def cpu_seconds(group: Path) -> float | None:
    """Return the processor time used so far; version 1 counts it in `cpuacct`."""
    if (nanoseconds := read_number(group / "cpuacct.usage")) is not None:
        return nanoseconds / 1e9
    used = read_table(group / "cpu.stat").get("usage_usec")
    return None if used is None else used / 1e6


# -- processes


def set_processes(group: Path, limit: int | None) -> None:
    """Limit processes and threads; the file is the same in both versions."""
    write(group / "pids.max", "max" if limit is None else limit)


def processes(group: Path) -> int | None:
    """Return how many processes and threads there are."""
    return read_number(group / "pids.current")


def refused_processes(group: Path) -> int:
    """Return how often one more was refused."""
    return read_table(group / "pids.events").get("max", 0)

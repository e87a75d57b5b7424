"""Telling processes apart: a pid alone is reused, so it never names a process by itself."""

import functools
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process for as long as this boot lasts: pid and the tick it was started at."""

    pid: int
    start_ticks: int
    boot_id: str

    def is_alive(self) -> bool:
        """Whether this very process still exists and is not a zombie."""
        if self.boot_id != boot_id():
            return False
        stat = read_stat(self.pid)
        return stat is not None and stat.start_ticks == self.start_ticks and stat.state != "Z"


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """The fields of `/proc/PID/stat` that identify a process (proc(5))."""

    state: str
    parent: int
    group: int
    start_ticks: int


@cache
def boot_id() -> str:
    """Return the kernel's random id of this boot, which no process outlives."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


MACHINE_FILES = ("/etc/machine-id", "/sys/class/dmi/id/product_uuid")
"""What an installation is called (machine-id(5)), and what its hardware is, if only virtually."""


@functools.cache
def machine(files: Sequence[str] = MACHINE_FILES) -> str:
    """Return what tells this machine from others, a copy of its disk included; empty if nothing.

    It stays as it is over reboots. The hardware's number is for root to read. Neither is passed on
    as it is, since other programs take them for secrets.
    """
    found = [_first_line(Path(name)) for name in files]
    return hashlib.sha256("\n".join(["carrel", *found]).encode()).hexdigest() if any(found) else ""


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip().lower()
    except OSError:
        return ""


def read_stat(pid: int) -> ProcessStat | None:
    """Return what `/proc` says of a process, or None if there is none."""
    try:
        raw = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command name is in parentheses and may itself hold spaces and parentheses.
    fields = raw[raw.rindex(b")") + 2 :].split()
    return ProcessStat(
        state=fields[0].decode("ascii"),
        parent=int(fields[1]),
        group=int(fields[2]),
        start_ticks=int(fields[19]),
    )


def identify(pid: int) -> ProcessIdentity | None:
    """Return the identity of a running process, or None if it is gone."""
    stat = read_stat(pid)
    return None if stat is None else ProcessIdentity(pid, stat.start_ticks, boot_id())


def own_identity() -> ProcessIdentity:
    """Return the identity of the calling process."""
    found = identify(os.getpid())
    assert found is not None  # noqa: S101 - the calling process exists
    return found

"""What holds a server's processes together and within their limits, seen from its record."""

import asyncio
import contextlib
import resource
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

from carrel_agent.cgroups.group import Counts, Group, GroupError
from carrel_agent.errors import LimitBelowUseError, LimitUnenforceableError
from carrel_agent.supervise.record import Record
from carrel_shared.wire.limits import LimitEvent, Limits, ServerUsage

MARGIN = 0.1
"""A lower limit must leave this much of what is in use free."""
JUST_NOW = timedelta(seconds=15)
"""A kill for memory that was seen so long ago may be the one that ended the server."""


def rlimits_of(limits: Limits) -> dict[str, tuple[int, int]]:
    """Return the resource limits (setrlimit(2)) that a server begins with."""
    if limits.open_files is None:
        return {}
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # More than this process may have can be given by few; less is what was asked for anyway.
    ceiling = limits.open_files if hard == resource.RLIM_INFINITY else hard
    value = min(limits.open_files, ceiling)
    return {"NOFILE": (value, value)}


def group_of(record: Record) -> Group | None:
    """Return the control group of a server, as this or an earlier agent made it."""
    return None if record.group is None else Group.at(record.group)


async def confine(group: Group, limits: Limits) -> None:
    """Make a server's control group, empty and with its limits in force.

    Raises:
        GroupError: If the kernel refuses.
    """

    def prepare() -> None:
        group.kill()  # whatever a server of this id left that no record knows of
        group.remove()
        group.make()
        group.apply(limits)

    await asyncio.to_thread(prepare)


async def end_group(group: Group) -> int:
    """Kill all that is left of a server and remove its group; return how many were killed."""

    def end() -> int:
        killed = group.kill()
        group.remove()
        return killed

    return await asyncio.to_thread(end)


def events_after(record: Record, counts: Counts, now: datetime) -> tuple[LimitEvent, ...]:
    """Return the limits that a server has met, as the kernel's counters now say."""
    limits = record.limits
    found: tuple[tuple[Literal["memory", "processes"], int, int | None, int | None], ...] = (
        ("memory", counts.memory_kills, limits.memory_bytes, counts.memory_peak),
        ("processes", counts.refused_processes, limits.processes, None),
    )
    known = {event.kind: event for event in record.limit_events}
    events = []
    for kind, count, limit, peak in found:
        before = known.get(kind)
        if before is not None and count <= before.count:
            events.append(before)
        elif count:
            events.append(LimitEvent(kind=kind, count=count, limit=limit, peak=peak, at=now))
    return tuple(events)


def killed_for_memory(events: Sequence[LimitEvent], now: datetime) -> LimitEvent | None:
    """Return the kill for memory that happened just now, if there was one."""
    return next((e for e in events if e.kind == "memory" and now - e.at < JUST_NOW), None)


def usage_of(record: Record, group: Group | None) -> ServerUsage:
    """Return what a server uses, with its limits."""
    usage = group.usage() if group else ServerUsage()
    unenforced = (group or Group(None, {})).cannot(record.limits)
    return usage.model_copy(update={"limits": record.limits, "unenforced": unenforced})


async def change_limits(record: Record, group: Group | None, limits: Limits) -> None:
    """Put other limits in force on a running server.

    Raises:
        LimitBelowUseError: One is too close to what is in use, or below it. Nothing was changed.
        LimitUnenforceableError: The kernel does not take one. Those before it are in force.
    """
    use = usage_of(record, group)
    refuse_below_use(use, limits)
    if limits.open_files != record.limits.open_files and record.handle is not None:
        pids = group.pids() if group else [record.handle.pid]
        _limit_open_files(pids, limits.open_files)
    if group is not None:
        try:
            await asyncio.to_thread(group.apply, limits)
        except GroupError as error:
            raise LimitUnenforceableError(str(error)) from error


def refuse_below_use(use: ServerUsage, limits: Limits) -> None:
    """Refuse a limit that would have the kernel kill, or refuse, at once.

    Raises:
        LimitBelowUseError: Saying what is in use and which limit would do.
    """
    if limits.memory_bytes is not None and use.memory_bytes is not None:
        least = int(use.memory_bytes * (1 + MARGIN))
        if limits.memory_bytes < least:
            raise LimitBelowUseError(
                f"memory: {in_words(use.memory_bytes)} are in use; the lowest limit that leaves a"
                f" margin of {MARGIN:.0%} is {in_words(least)} ({least} bytes), and"
                f" {in_words(limits.memory_bytes)} were asked for"
            )
    if limits.processes is not None and use.processes is not None:
        least = use.processes + 1
        if limits.processes < least:
            raise LimitBelowUseError(
                f"processes: {use.processes} run; the lowest limit that leaves room for one more is"
                f" {least}, and {limits.processes} were asked for"
            )


def _limit_open_files(pids: Sequence[int], limit: int | None) -> None:
    """Change the limit of every process there is; what they start inherits it."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            try:
                _soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
                value = hard if limit is None else limit
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (value, value))
            except (PermissionError, ValueError) as error:
                raise LimitUnenforceableError(
                    "open_files: this agent lacks the right to change it while a server runs"
                    " (CAP_SYS_RESOURCE); leave it as it is, or start the server anew"
                ) from error


def in_words(size: int) -> str:
    """Return a number of bytes as people say it."""
    value, units = float(size), ["bytes", "KiB", "MiB", "GiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{value:.0f} {units[0]}" if value >= 100 or value == size else f"{value:.1f} {units[0]}"

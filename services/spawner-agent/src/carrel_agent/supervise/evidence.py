"""Gathering what explains an end: what is said, and how the disk stands."""

import asyncio
import os

import structlog

from carrel_agent.supervise.explain import TAIL_LINES, Evidence
from carrel_agent.supervise.listeners import listener_uids
from carrel_agent.supervise.logs import ServerLogs
from carrel_agent.supervise.patience import within
from carrel_agent.supervise.record import Record
from carrel_agent.supervise.scratch import can_make_for

log = structlog.get_logger(__name__)

DISK_SECONDS = 2.0
"""How long a file system may take to say how full it is: a lost file server says nothing."""


async def gather(record: Record, logs: ServerLogs, *, last_status: int | None) -> Evidence:
    """Return what is known of a server that has ended."""
    tail = await asyncio.to_thread(logs.tail, record.server_id, TAIL_LINES)
    taken = bool(record.port) and bool(listener_uids(record.port) - {record.uid})
    home = record.scratch or record.home
    return Evidence(
        tail=tail,
        home=await state_of_disk(home) if home else "",
        last_status=last_status,
        port_taken=taken and record.ready_at is None,
        can_move=can_make_for(record.uid),
    )


async def state_of_disk(path: str) -> str:
    """Return what is wrong with the file system at `path`: "is full", say; else nothing."""
    try:
        found = await within(DISK_SECONDS, ("disk", path), lambda: os.statvfs(path))
    except TimeoutError:
        return "does not answer"
    except OSError:
        return ""
    if found.f_blocks and not found.f_bavail:
        return "is full"
    if found.f_files and not found.f_favail:
        return "has no room for more files"
    return ""

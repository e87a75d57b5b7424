"""Which processes belong to a server, and ending them all.

Control groups would answer the first question exactly. Without them a process is taken for a
server's if it is its user's, younger than the server, and: it is in the server's session; or it
descends from one that is the server's; or it still has the server's id in its environment; or it
is a daemon that was left to the keeper while no other server of that user runs here.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from carrel_agent.supervise.patience import within

log = structlog.get_logger(__name__)

SERVER_ID_VARIABLE = "CARREL_SERVER_ID"
SWEEP_SECONDS = 5.0
LOOK_SECONDS = 60.0
"""How long a look at the process table may take; many at once take their time."""
MOST_ENVIRONMENT = 1 << 20
"""How much of a process's environment is read: what is shown as that is the process's to say."""


@dataclass(frozen=True, slots=True)
class Process:
    """One row of the process table (proc(5)). `uid` is the real one."""

    pid: int
    parent: int
    session: int
    start_ticks: int
    uid: int
    marked: bool = False


@dataclass(frozen=True, slots=True)
class Tree:
    """The server whose processes are meant.

    Attributes:
        pid, start_ticks: Of its main process, which may have ended.
        uid: Nothing of another account is ever its own.
        session: The main process was watched until its end, or lives. Else its number may since
            have become that of somebody's session.
        keeper: The pid that orphans are left to; 0 when those are not to be taken.
        spared: Processes that are never the server's: agent, keeper, zygote, other servers.
    """

    server_id: str
    pid: int
    start_ticks: int
    uid: int
    session: bool = False
    keeper: int = 0
    spared: frozenset[int] = frozenset()


def members(tree: Tree, processes: Iterable[Process]) -> set[Process]:
    """Return the processes that belong to the server, its main process included."""
    candidates = [
        p
        for p in processes
        if p.uid == tree.uid and p.start_ticks >= tree.start_ticks and p.pid not in tree.spared
    ]
    found = {
        p
        for p in candidates
        if (p.pid, p.start_ticks) == (tree.pid, tree.start_ticks)
        or (tree.session and p.session == tree.pid)
        or p.marked
        or (tree.keeper and p.parent == tree.keeper)
    }
    known = {p.pid for p in found}
    while more := {p for p in candidates if p.parent in known and p.pid not in known}:
        found |= more
        known |= {p.pid for p in more}
    return found


def read_processes(server_id: str, uid: int) -> list[Process]:
    """Return all processes of one account; `marked` says which name the server."""
    mark = f"{SERVER_ID_VARIABLE}={server_id}".encode("ascii")
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (process := _read(entry, mark, uid)) is not None:
            found.append(process)
    return found


def _read(entry: Path, mark: bytes, uid: int) -> Process | None:
    try:
        status = (entry / "status").read_bytes()
        real_uid = int(status[status.index(b"\nUid:") + 5 :].split(None, 1)[0])
        if real_uid != uid:
            return None
        raw = (entry / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    fields = raw[raw.rindex(b")") + 2 :].split()
    if fields[0] == b"Z":
        return None
    marked = False
    with contextlib.suppress(OSError), (entry / "environ").open("rb") as file:
        marked = mark in file.read(MOST_ENVIRONMENT).split(b"\0")
    return Process(
        pid=int(entry.name),
        parent=int(fields[1]),
        session=int(fields[3]),
        start_ticks=int(fields[19]),
        uid=real_uid,
        marked=marked,
    )


async def kill_tree(tree: Callable[[], Tree], also: Collection[Process] = ()) -> int:
    """Kill whatever is left of a server, until nothing is; return how many were killed.

    Args:
        tree: The server, asked for each round, since what is spared changes meanwhile.
        also: Processes seen to be the server's earlier.
    """
    killed: set[tuple[int, int]] = set()
    loop = asyncio.get_running_loop()
    deadline = loop.time() + SWEEP_SECONDS
    pending = {(p.pid, p.start_ticks) for p in also}
    while True:
        now = tree()
        # Memory that a process shows as its environment may lie in a file that it serves itself.
        rows = await within(
            LOOK_SECONDS,
            ("processes", now.server_id, now.uid),
            partial(read_processes, now.server_id, now.uid),
        )
        living = {(p.pid, p.start_ticks) for p in rows}
        left = {(p.pid, p.start_ticks) for p in members(now, rows)} | (pending & living)
        if not left:
            return len(killed)
        if loop.time() > deadline:
            log.error("processes_left", server_id=now.server_id, pids=sorted(p for p, _ in left))
            return len(killed)
        for pid, start_ticks in left:
            if signal_process(pid, start_ticks, signal.SIGKILL):
                killed.add((pid, start_ticks))
        await asyncio.sleep(0.02)


def signal_process(pid: int, start_ticks: int, number: signal.Signals) -> bool:
    """Signal this very process and no other; return whether it was there.

    The descriptor is opened first and the identity read after: what it names cannot change then.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        raw = Path(f"/proc/{pid}/stat").read_bytes()
        if int(raw[raw.rindex(b")") + 2 :].split()[19]) != start_ticks:
            return False
        signal.pidfd_send_signal(descriptor, number)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True

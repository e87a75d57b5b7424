"""Finding the process that was started when nobody wrote down which.

An agent may die after it asked for a process and before it heard which. Every server holds the
socket that was bound for it, from the moment of its fork, so the holder of that socket is the
server. A socket that the kernel still lists while no process holds it is on its way in a message
of a zygote; one that is not listed is nobody's, and never will be.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

import structlog

from carrel_agent.supervise.process_tree import Tree, kill_tree
from carrel_agent.supervise.sockets import bound_numbers
from carrel_agent.supervise.unix_sockets import is_open
from carrel_agent.supervise.watch import real_uid
from carrel_shared.identity import ProcessIdentity, boot_id

log = structlog.get_logger(__name__)

SEARCH_SECONDS = 10.0
"""After this long a start that nobody saw the end of is reported as unknown, and looked for on."""


class Trace(Enum):
    """What is known when no server was found."""

    NOTHING = auto()
    """There is none, and none can come of that start any more."""
    PENDING = auto()
    """A process may be about to appear: look again."""


@dataclass(frozen=True, slots=True)
class Found:
    """The server's main process."""

    identity: ProcessIdentity
    uid: int


def holders(numbers: set[int], *, except_pid: int) -> list[int]:
    """Return the processes that have one of these sockets open."""
    links = {f"socket:[{number}]" for number in numbers}
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == except_pid:
            continue
        with contextlib.suppress(OSError):  # it ended, or belongs to somebody else
            if any(str(fd.readlink()) in links for fd in (entry / "fd").iterdir()):
                found.append(int(entry.name))
    return found


def find_server(
    path: Path, *, since_ticks: int, agent_pid: int, agent_holds_it: bool = False
) -> Found | Trace:
    """Return the server that holds the socket at `path`.

    Args:
        path: The server's socket.
        since_ticks: Processes older than this are not it.
        agent_pid: The caller.
        agent_holds_it: The caller has the socket open itself. That it is listed then proves
            nothing, and the caller must know that no request for it is on its way.
    """
    numbers = set(filter(is_open, bound_numbers(path)))
    if not numbers:
        return Trace.NOTHING
    found = holders(numbers, except_pid=agent_pid)
    leaders = []
    for pid in found:
        stat = _stat(pid)
        if stat is None or stat.state == "Z" or stat.start_ticks < since_ticks:
            continue
        # A zygote, and the process between it and the server, are in the keeper's session; a
        # server begins with one of its own.
        if stat.session == pid and (uid := real_uid(pid)) is not None:
            leaders.append((stat.start_ticks, pid, uid))
    if leaders:
        ticks, pid, uid = min(leaders)
        return Found(ProcessIdentity(pid, ticks, boot_id()), uid)
    if agent_holds_it and not found:
        return Trace.NOTHING
    return Trace.PENDING


@dataclass(frozen=True, slots=True)
class _Stat:
    state: str
    session: int
    start_ticks: int


def _stat(pid: int) -> _Stat | None:
    try:
        raw = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = raw[raw.rindex(b")") + 2 :].split()
    return _Stat(fields[0].decode("ascii"), int(fields[3]), int(fields[19]))


async def find_until_sure(
    path: Path, *, since_ticks: int, agent_holds_it: bool, cannot_say: Callable[[], None]
) -> Found | None:
    """Return the server that holds the socket at `path`, or None once it is sure there is none.

    Args:
        path, since_ticks, agent_holds_it: As for `find_server`.
        cannot_say: Called once if that takes long.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + SEARCH_SECONDS
    late = False
    while True:
        found = await asyncio.to_thread(
            find_server,
            path,
            since_ticks=since_ticks,
            agent_pid=os.getpid(),
            agent_holds_it=agent_holds_it,
        )
        if found is not Trace.PENDING:
            return found if isinstance(found, Found) else None
        if not late and loop.time() > deadline:
            late = True
            cannot_say()
        await asyncio.sleep(0.5 if late else 0.02)


async def end_remains(path: Path, *, server_id: str, uid: int) -> None:
    """End what still holds a server's socket, though no record knows of it.

    That is a server whose journal was lost: with it alive, there would be two.
    """
    if not path.exists():  # noqa: ASYNC240 - our own directory, in memory
        return
    found = await asyncio.to_thread(find_server, path, since_ticks=0, agent_pid=os.getpid())
    if isinstance(found, Found) and found.uid == uid:
        pid, start_ticks = found.identity.pid, found.identity.start_ticks
        log.warning("lost_server_ended", server_id=server_id, pid=pid)
        tree = Tree(server_id, pid, start_ticks, uid, session=True)
        await kill_tree(lambda: tree)

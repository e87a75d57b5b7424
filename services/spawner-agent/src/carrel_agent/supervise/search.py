"""Finding the process that was started when nobody wrote down which.

An agent may die after it asked for a process and before it heard which. Every server holds the
socket that was bound for it, from the moment of its fork, so the holder of that socket is the
server. A socket that the kernel still lists while no process holds it is on its way in a message
of a zygote; one that is not listed is nobody's, and never will be.
"""

import contextlib
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from carrel_agent.supervise.watch import real_uid
from carrel_shared.identity import ProcessIdentity, boot_id

UNIX_SOCKETS = Path("/proc/net/unix")


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


def socket_inodes(path: Path) -> set[str]:
    """Return the kernel's numbers of the sockets bound at `path`."""
    found = set()
    for line in UNIX_SOCKETS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()[1:]:
        fields = line.split(None, 7)
        if len(fields) == 8 and fields[7] == str(path):
            found.add(fields[6])
    return found


def holders(inodes: set[str], *, except_pid: int) -> list[int]:
    """Return the processes that have one of these sockets open."""
    links = {f"socket:[{inode}]" for inode in inodes}
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
    inodes = socket_inodes(path)
    if not inodes:
        return Trace.NOTHING
    found = holders(inodes, except_pid=agent_pid)
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

"""Finding and ending the processes of one installation, however they were started."""

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from carrel_hub.up.launch import Watched
from carrel_shared.identity import identify, read_stat

PR_SET_CHILD_SUBREAPER = 36
PR_GET_CHILD_SUBREAPER = 37


@contextmanager
def adopting_orphans() -> Iterator[bool]:
    """Have orphans among our descendants become our children meanwhile (prctl(2)).

    Yields:
        Whether they did so before, and will afterwards.
    """
    libc = ctypes.CDLL(None)
    before = ctypes.c_int()
    libc.prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(before), 0, 0, 0)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield bool(before.value)
    finally:
        libc.prctl(PR_SET_CHILD_SUBREAPER, before.value, 0, 0, 0)


def child_of(parent: int, words: str) -> int | None:
    """Return the child of a process whose command line holds `words`."""
    for pid in _pids():
        stat = read_stat(pid)
        if stat is not None and stat.parent == parent and stat.state != "Z":
            with suppress(OSError):
                if words.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return pid
    return None


def kill_leftovers(base: Path) -> list[str]:
    """Kill what `leftovers` finds; return what it was."""
    ended = []
    for pid, command in leftovers(base):
        identity = identify(pid)
        if identity is None:
            continue
        with suppress(ProcessLookupError):
            watched = Watched(identity, is_child=False)
            watched.signal(signal.SIGKILL)
            watched.has_ended(30)
            watched.close()
            ended.append(command)
    return ended


def leftovers(base: Path) -> list[tuple[int, str]]:
    """Return processes that hold, were told of, or were started with something below `base`."""
    needle = f"{base}/".encode()
    found = []
    for pid in _pids():
        proc = Path(f"/proc/{pid}")
        if pid == os.getpid() or pid == os.getppid():
            continue
        try:
            command = (proc / "cmdline").read_bytes()
            held = [os.fsencode(each.readlink()) for each in (proc / "fd").iterdir()]
            seen = [command, (proc / "environ").read_bytes(), *held]
        except OSError:
            continue
        stat = read_stat(pid)
        if stat is not None and stat.state != "Z" and any(needle in each for each in seen):
            found.append((pid, command.replace(b"\0", b" ").decode(errors="replace")))
    return found


def open_files(pid: int) -> dict[str, str]:
    """Return what a process has open by descriptor; it may close some while they are looked at,
    or end."""
    found = {}
    with suppress(FileNotFoundError, ProcessLookupError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                found[entry.name] = str(entry.readlink())
    return found


def command_lines() -> bytes:
    """Return the command lines of all processes there are, one after the other."""
    found = []
    for pid in _pids():
        with suppress(OSError):  # it has ended
            found.append(Path(f"/proc/{pid}/cmdline").read_bytes())
    return b"\n".join(found)


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def wait_until(condition: Callable[[], bool], seconds: float, problem: Callable[[], str]) -> None:
    """Return when `condition` holds.

    Raises:
        AssertionError: With what `problem` says, when it does not in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, problem()
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Whether a process of that number runs."""
    found = identify(pid)
    return found is not None and found.is_alive()

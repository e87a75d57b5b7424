"""The little the keeper reads in /proc (proc(5))."""

# pathlib costs a megabyte, an eighth of what the keeper needs.
# ruff: noqa: PTH123

import ctypes

PR_SET_CHILD_SUBREAPER = 36


def boot_id() -> str:
    """Return the kernel's random id of this boot."""
    with open("/proc/sys/kernel/random/boot_id", "rb") as file:
        return file.read().decode("ascii").strip()


def parent_and_start(pid: int) -> tuple[int, int] | None:
    """Return a process's parent and its start in clock ticks since boot, or None if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            raw = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command name is in parentheses and may itself hold spaces and parentheses.
    fields = raw[raw.rindex(b")") + 2 :].split()
    return int(fields[1]), int(fields[19])


def start_ticks(pid: int) -> int:
    """Return when a child of ours, running or not yet reaped, was started."""
    found = parent_and_start(pid)
    return found[1] if found else 0


def become_subreaper() -> None:
    """Have orphans among our descendants become our children (prctl(2)).

    Raises:
        OSError: If the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")

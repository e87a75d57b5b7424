"""What `ps` and `top` show for a process that was forked, not executed."""

import ctypes

from carrel_agent.process.capabilities import set_short_name

# Counted from the field after the command's name, which is the third (proc(5)).
_ARG_START, _ARG_END = 48 - 3, 49 - 3


def set_title(title: str) -> None:
    """Overwrite this process's argument memory and its short name.

    What does not fit is cut. Does nothing where the kernel does not say where that memory is.
    """
    set_short_name(title)
    start, end = _argument_memory()
    if end - start < 2:
        return
    text = title.encode("utf-8", "replace")[: end - start - 1]
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, text, len(text))


def _argument_memory() -> tuple[int, int]:
    with open("/proc/self/stat", "rb") as stat:  # noqa: PTH123
        fields = stat.read().rsplit(b")", 1)[1].split()
    return int(fields[_ARG_START]), int(fields[_ARG_END])

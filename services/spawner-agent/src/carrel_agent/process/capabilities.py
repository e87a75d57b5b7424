"""The kernel calls that Python has no wrapper for: capabilities(7) and prctl(2)."""

import os
from typing import Any

_SETS = ("CapInh", "CapPrm", "CapEff", "CapAmb")
_CAPABILITY_VERSION_3 = 0x20080522
_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15


def held_capabilities() -> str:
    """Return this process's non-empty capability sets, as in `/proc/self/status`; "" if none.

    The bounding set is left out: it holds what an exec could gain, not what the process has.
    """
    with open("/proc/self/status", encoding="utf-8", errors="replace") as status:  # noqa: PTH123
        entries = (line.split(":", 1) for line in status if line.startswith(_SETS))
        return " ".join(f"{n}={v.strip()}" for n, v in entries if int(v, 16))


def clear_capabilities() -> None:
    """Empty the permitted, effective and inheritable sets, and by that the ambient one.

    Leaving uid 0 has emptied all but the inheritable set already, so there is seldom work.

    Raises:
        OSError: If the kernel refuses.
    """
    if not held_capabilities():
        return
    import ctypes

    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    _check(_libc().capset(header, nothing), "capset")


def set_dumpable() -> None:
    """Make this process's `/proc` files its user's, as they are after an exec (proc(5)).

    Raises:
        OSError: If the kernel refuses.
    """
    _check(_libc().prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0), "PR_SET_DUMPABLE")


def set_short_name(name: str) -> None:
    """Set the name that `ps -o comm` and `top` show: 15 bytes at most, the rest is cut.

    Raises:
        OSError: If the kernel refuses.
    """
    import ctypes

    text = ctypes.create_string_buffer(name.encode("utf-8", "replace")[:15])
    _check(_libc().prctl(_PR_SET_NAME, text, 0, 0, 0), "PR_SET_NAME")


def _libc() -> Any:
    # Imported here: the keeper loads this package and should not pay for ctypes.
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, call: str) -> None:
    if result != 0:
        import ctypes

        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")

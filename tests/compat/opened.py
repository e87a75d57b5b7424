"""A view of the file system in which another account can reach what lies in a closed home.

As root, servers run as an account that cannot enter root's home, where a suite may have the
programs that they are to execute. In a mount namespace of its own the launcher sees that home empty
but for those programs' directories; nobody outside sees any difference.
"""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

_INSIDE = "CARREL_COMPAT_OPENED"


def enter(programs: Iterable[Path]) -> None:
    """Go on in such a view, if one of the programs could not be reached otherwise.

    Does nothing without root, or where mounting is not allowed: the programs then stay closed.
    """
    if os.geteuid() != 0 or os.environ.get(_INSIDE):
        return
    wanted = sorted({path for program in programs for path in _directories(program)})
    closed = {place for path in wanted if (place := _closed_above(path)) is not None}
    unshare = shutil.which("unshare")
    if not closed or unshare is None:
        return
    probe = subprocess.run([unshare, "-m", "true"], check=False, stderr=subprocess.DEVNULL)
    if probe.returncode != 0:
        return
    os.environ[_INSIDE] = ":".join(map(str, sorted(closed)))
    os.environ[f"{_INSIDE}_PATHS"] = ":".join(map(str, wanted))
    words = [unshare, "-m", "--propagation", "private", sys.executable, "-I", *sys.argv]
    os.execv(unshare, words)  # noqa: S606 - this very program again


def arrange() -> None:
    """In the new namespace: cover what is closed, and put back what is needed."""
    closed = [Path(text) for text in os.environ.get(_INSIDE, "").split(":") if text]
    if not closed:
        return
    paths = [Path(text) for text in os.environ[f"{_INSIDE}_PATHS"].split(":")]
    held = {path: os.open(path, os.O_PATH) for path in paths}
    for place in closed:
        _mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", str(place))
    for path, descriptor in held.items():
        if any(path.is_relative_to(place) for place in closed):
            path.mkdir(parents=True, exist_ok=True)
            # -c: the kernel follows the link to what is held; its text leads to what covers it.
            _mount("-c", "--bind", f"/proc/{os.getpid()}/fd/{descriptor}", str(path))
        os.close(descriptor)


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def _directories(program: Path) -> list[Path]:
    """Return where a program of a Python environment is, and the Python it was made of."""
    prefix = program.parent.parent
    python = (program.parent / "python").resolve()
    return [prefix, python.parent.parent] if python.exists() else [prefix]


def _closed_above(path: Path) -> Path | None:
    for place in reversed(path.parents):
        if not place.stat().st_mode & stat.S_IXOTH:
            return place
    return None

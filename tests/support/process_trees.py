"""What a service uses that may be several processes: one that was started and its descendants."""

import os
import subprocess
from pathlib import Path


def tree(pid: int) -> list[int]:
    """Return a process and all that it started, as far as they live."""
    found = [pid]
    for one in found:
        try:
            children = Path(f"/proc/{one}/task/{one}/children").read_text(encoding="ascii")
        except OSError:
            continue
        found += [int(child) for child in children.split()]
    return found


def descriptors(pid: int) -> int:
    """Return how many descriptors a tree has open."""
    return sum(sum(1 for _ in Path(f"/proc/{one}/fd").iterdir()) for one in tree(pid))


def resident_mib(pid: int) -> float:
    """Return the memory of a tree."""
    pages = sum(
        int(Path(f"/proc/{one}/statm").read_text(encoding="ascii").split()[1]) for one in tree(pid)
    )
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def end(process: "subprocess.Popen[str] | subprocess.Popen[bytes]") -> None:
    """Ask a process to end, so that it can end what it started; kill it if it does not."""
    process.terminate()
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(60)

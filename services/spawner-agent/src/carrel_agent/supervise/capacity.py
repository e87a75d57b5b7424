"""What the host has, and how busy it is."""

import os
from pathlib import Path

from carrel_shared.wire.agents import Capacity


def read_capacity() -> Capacity:
    """Return the host's figures as of now."""
    memory = dict(
        line.split(":", 1) for line in Path("/proc/meminfo").read_text("ascii").splitlines()
    )
    return Capacity(
        cores=len(os.sched_getaffinity(0)),
        memory_total=_kibibytes(memory["MemTotal"]),
        memory_available=_kibibytes(memory["MemAvailable"]),
        load_1m=os.getloadavg()[0],
    )


def _kibibytes(value: str) -> int:
    return int(value.split()[0]) * 1024

"""What the host has, and how busy it is."""

import os
import shutil
from pathlib import Path

from carrel_shared.wire.agents import Capacity

_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "ceph", "lustre", "gpfs", "beegfs", "fuse.glusterfs")
_NVIDIA, _AMD = Path("/proc/driver/nvidia/gpus"), Path("/sys/class/kfd/kfd/topology/nodes")


def read_capacity(state_dir: Path) -> Capacity:
    """Return the host's figures as of now.

    Args:
        state_dir: On the file system whose room is told.
    """
    memory = dict(
        line.split(":", 1) for line in Path("/proc/meminfo").read_text("ascii").splitlines()
    )
    disk = shutil.disk_usage(state_dir)
    return Capacity(
        cores=len(os.sched_getaffinity(0)),
        memory_total=_kibibytes(memory["MemTotal"]),
        memory_available=_kibibytes(memory["MemAvailable"]),
        load_1m=os.getloadavg()[0],
        disk_total=disk.total,
        disk_available=disk.free,
        gpus=find_gpus(),
    )


def find_gpus(nvidia: Path = _NVIDIA, amd: Path = _AMD) -> list[str]:
    """Return what each graphics processor that computes is called, as its driver says."""
    found = [_field(card / "information", "Model", ":") or "NVIDIA" for card in _entries(nvidia)]
    # A node of AMD's driver without SIMD units is a processor.
    found += [
        "AMD" for node in _entries(amd) if int(_field(node / "properties", "simd_count") or 0)
    ]
    return found


def home_source(mounts: Path = Path("/proc/self/mounts")) -> str:
    """Return what /home lies on, where that is a network file system; else empty."""
    found = ""
    for line in mounts.read_text("utf-8", "replace").splitlines():
        source, place, kind, *_ = line.split(" ")
        if place == "/home":
            found = source if kind in _NETWORK else ""
    return found[:255]


def _entries(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []


def _field(path: Path, name: str, separator: str = " ") -> str:
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        key, _, value = line.partition(separator)
        if key.strip() == name:
            return value.strip()
    return ""


def _kibibytes(value: str) -> int:
    return int(value.split()[0]) * 1024

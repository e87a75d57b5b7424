"""Where the kernel's control groups are mounted (cgroups(7))."""

from dataclasses import dataclass
from pathlib import Path

USED = frozenset({"memory", "cpu", "pids", "cpuacct"})
"""The controllers that limit a server, and the one that counts processor time in version 1."""


@dataclass(frozen=True, slots=True)
class Mount:
    """One hierarchy of control groups.

    Attributes:
        version: 1, where each controller has a hierarchy of its own, or 2, where they share one.
        point: Where it is mounted.
        own: The group of the calling process, as a path below `point`; "" for the topmost.
        controllers: Version 1 only: those of `USED` that this hierarchy has.
    """

    version: int
    point: Path
    own: str
    controllers: frozenset[str] = frozenset()

    @property
    def own_path(self) -> Path:
        """The directory of the calling process's group."""
        return self.point / self.own


def read_mounts() -> list[Mount]:
    """Return the hierarchies that this process can see."""
    mountinfo = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    return parse_mounts(mountinfo, Path("/proc/self/cgroup").read_text(encoding="utf-8"))


def parse_mounts(mountinfo: str, own: str) -> list[Mount]:
    """Return the hierarchies of interest.

    Args:
        mountinfo: `/proc/self/mountinfo`.
        own: `/proc/self/cgroup`.
    """
    groups = dict(_own_groups(own))
    found: dict[frozenset[str], Mount] = {}
    for line in mountinfo.splitlines():
        place, _, kind = line.partition(" - ")
        fields, (filesystem, _source, options) = place.split(), kind.split(None, 2)
        root, point = fields[3], Path(_unescaped(fields[4]))
        if filesystem == "cgroup2" and "" in groups:
            key: frozenset[str] = frozenset()
            mount = Mount(2, point, _below(groups[""], root))
        elif filesystem == "cgroup" and (key := USED & set(options.strip().split(","))):
            name = next((n for n in key if n in groups), None)
            if name is None:
                continue
            mount = Mount(1, point, _below(groups[name], root), key)
        else:
            continue
        found.setdefault(key, mount)  # one that is mounted twice is met at its first place
    return list(found.values())


def _own_groups(text: str) -> list[tuple[str, str]]:
    """Return (controller, path) of each line; version 2 has no controller's name."""
    pairs = []
    for line in text.splitlines():
        _number, names, path = line.split(":", 2)
        pairs += [(name, path) for name in names.split(",")]
    return pairs


def _below(path: str, root: str) -> str:
    """Return a group's path below a mount that may show a part of the hierarchy only."""
    if root != "/" and (path == root or path.startswith(f"{root}/")):
        path = path[len(root) :]
    return path.strip("/")


def _unescaped(path: str) -> str:
    for code in ("040", "011", "012", "134"):
        path = path.replace(f"\\{code}", chr(int(code, 8)))
    return path

"""What this host can enforce, and where its servers' control groups are.

Version 1: below the agent's own group of each controller, so that what limits the agent limits its
servers. Version 2, as root: at the top of the hierarchy, beside the service manager's groups, since
a group with processes of its own, such as a service's, can have no limited ones below it and goes
away with the service. Version 2 without root: below the agent's own group, if that was delegated to
it and holds no other processes.
"""

import contextlib
import errno
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from carrel_agent.cgroups import controls
from carrel_agent.cgroups.group import CONTROLLERS, Group
from carrel_agent.cgroups.mounts import Mount, read_mounts
from carrel_shared.wire.limits import LimitKind, Limits

log = structlog.get_logger(__name__)

SUPERVISOR = "carrel-supervisor"
"""The leaf into which keeper, agent and zygote step aside in a group that was delegated to them."""


@dataclass(frozen=True, slots=True)
class Base:
    """Where servers' groups are made in one hierarchy."""

    directory: Path
    version: int
    controllers: frozenset[str]


class ControlGroups:
    """Makes servers' control groups.

    Args:
        bases: From `find_bases`.
        reasons: Why a controller cannot be used, by its name.
    """

    def __init__(self, bases: Sequence[Base], reasons: dict[str, str]) -> None:
        self._bases = list(bases)
        self._reasons = dict(reasons)

    @property
    def enforced(self) -> frozenset[str]:
        """The controllers that limit servers here."""
        return frozenset({name for base in self._bases for name in base.controllers})

    def group(self, server_id: str) -> Group:
        """Return a server's group, made or not."""
        unified: Path | None = None
        controllers: dict[str, tuple[Path, int]] = {}
        for base in self._bases:
            place = base.directory / server_id
            if base.version == 2:
                unified = place
            controllers |= dict.fromkeys(base.controllers, (place, base.version))
        return Group(unified, controllers)

    def refusal(self, limits: Limits) -> str | None:
        """Return why these limits cannot be enforced here, in words, or None if they can."""
        missing = self.group("x").cannot(limits)
        if not missing:
            return None
        told = "; ".join(f"{kind}: {self._reason(kind)}" for kind in missing)
        return (
            f"this host cannot enforce limits ({told}). Mend that, or set `advisory = true` beside"
            " the limits in the profile to start without"
        )

    def _reason(self, kind: LimitKind) -> str:
        name = CONTROLLERS[kind]
        return self._reasons.get(name, f"its kernel offers no {name} controller")

    def close(self) -> None:
        """Remove the places for servers' groups, if no server needs them."""
        for base in self._bases:
            with contextlib.suppress(OSError):
                base.directory.rmdir()

    def left_over(self) -> set[str]:
        """Return the names of the groups that are there."""
        places = [base.directory for base in self._bases]
        return {entry.name for place in places for entry in place.iterdir() if entry.is_dir()}


def open_control_groups(state_dir: Path) -> ControlGroups:
    """Find out what this host offers, and make the places for servers' groups.

    Args:
        state_dir: The agent's; two agents of one host are told apart by it.
    """
    companions = frozenset({os.getpid(), os.getppid()})
    groups = find_bases(
        read_mounts(),
        directory_name(state_dir),
        privileged=os.geteuid() == 0,
        companions=companions,
    )
    log.info("control_groups", enforced=sorted(groups.enforced))
    return groups


def directory_name(state_dir: Path) -> str:
    """Return what an agent's directory of groups is called; two agents of one host have two."""
    return f"carrel-{hashlib.sha256(os.fsencode(state_dir)).hexdigest()[:8]}"


def find_bases(
    mounts: Sequence[Mount], name: str, *, privileged: bool, companions: frozenset[int]
) -> ControlGroups:
    """Make the directory for servers' groups in each hierarchy, and say what cannot be had.

    Args:
        mounts: The hierarchies.
        name: What that directory is called.
        privileged: Whether this is root.
        companions: Processes that may be in a group which was delegated to the agent.
    """
    bases: list[Base] = []
    reasons: dict[str, str] = {}
    for mount in sorted(mounts, key=lambda mount: mount.version):
        if mount.version == 2 and _adds_nothing(mount, bases):
            continue
        try:
            if mount.version == 1:
                directory = mount.own_path / name
                directory.mkdir(exist_ok=True)
                bases.append(Base(directory, 1, mount.controllers))
            else:
                bases.append(_second_version(mount, name, privileged, companions, reasons))
        except OSError as error:
            for controller in mount.controllers or CONTROLLERS.values():
                reasons[controller] = _explain(error, mount)
    have = {controller for base in bases for controller in base.controllers}
    return ControlGroups(bases, {k: v for k, v in reasons.items() if k not in have})


def _adds_nothing(mount: Mount, first: Sequence[Base]) -> bool:
    """Whether a hierarchy of version 2 has nothing that those of version 1 do not do as well.

    They hold servers' processes together, and no controller is left for it. To join it would cost
    each start ten milliseconds (`process.drop`).
    """
    there = set((controls.read_text(mount.point / "cgroup.controllers") or "").split())
    held = any("pids" in base.controllers for base in first)
    return held and not there & {"memory", "cpu", "pids"}


def _second_version(
    mount: Mount,
    name: str,
    privileged: bool,
    companions: frozenset[int],
    reasons: dict[str, str],
) -> Base:
    parent = mount.point if privileged else _step_aside(mount, companions)
    available = set((controls.read_text(parent / "cgroup.controllers") or "").split())
    wanted = sorted(available & {"memory", "cpu", "pids"})
    directory = parent / name
    _enable(parent, wanted, reasons)
    directory.mkdir(exist_ok=True)
    _enable(directory, wanted, reasons)
    enabled = set((controls.read_text(directory / "cgroup.subtree_control") or "").split())
    return Base(directory, 2, frozenset(set(wanted) & enabled))


def _step_aside(mount: Mount, companions: frozenset[int]) -> Path:
    """Leave a group that was delegated to us, for a leaf of it; return that group.

    Raises:
        OSError: If it was not delegated, or others are in it.
    """
    own = mount.own_path
    if own.name == SUPERVISOR:
        return own.parent
    pids = {int(word) for word in (controls.read_text(own / "cgroup.procs") or "").split()}
    if not pids <= companions:
        raise OSError(errno.EBUSY, "other processes are in the agent's control group")
    leaf = own / SUPERVISOR
    leaf.mkdir(exist_ok=True)
    for pid in sorted(pids):
        controls.write(leaf / "cgroup.procs", pid)
    return own


def _enable(group: Path, wanted: list[str], reasons: dict[str, str]) -> None:
    """Hand controllers on to the groups below, each for itself: one that is refused is no bar."""
    for controller in wanted:
        try:
            controls.write(group / "cgroup.subtree_control", f"+{controller}")
        except OSError as error:
            reasons[controller] = f"{group} does not hand it on: {error.strerror}"


def _explain(error: OSError, mount: Mount) -> str:
    where = f"{mount.point} (version {mount.version})"
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            f"{where} is not the agent's to write; run it as root, or as a service with"
            " Delegate=yes"
        )
    return f"{where}: {error.strerror}"

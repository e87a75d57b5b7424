"""The control group of one server: its limits, its use, its processes, its end.

In version 1 that is a directory in each controller's hierarchy, in version 2 one for all of them.
"""

import contextlib
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog
from pydantic import BaseModel, ConfigDict

from carrel_agent.cgroups import controls
from carrel_shared.wire.limits import LimitKind, Limits, ServerUsage

log = structlog.get_logger(__name__)

KILL_SECONDS = 5.0
HELD_AT_ONCE = 256
"""How many processes are held to be killed for each look at which are in the group."""
CONTROLLERS: dict[LimitKind, str] = {"memory": "memory", "cpu": "cpu", "processes": "pids"}
"""Which controller enforces a limit. Open files are a resource limit of each process."""


class GroupError(Exception):
    """Something of a server's control group could not be done; the message is for people."""


class GroupPlace(BaseModel):
    """A group as the journal has it; see `Group`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    unified: Path | None = None
    controllers: dict[str, tuple[Path, int]] = {}


@dataclass(frozen=True, slots=True)
class Counts:
    """How often limits were met so far, and the most that was used."""

    memory_kills: int = 0
    memory_peak: int | None = None
    refused_processes: int = 0


class Group:
    """One server's control group.

    Args:
        unified: Its directory in version 2's hierarchy, where there is one.
        controllers: The directory and the version of each controller that can be used.
    """

    def __init__(self, unified: Path | None, controllers: Mapping[str, tuple[Path, int]]) -> None:
        self._unified = unified
        self._controllers = dict(controllers)

    @property
    def place(self) -> GroupPlace:
        """Where it is, to be opened again by a later agent."""
        return GroupPlace(unified=self._unified, controllers=self._controllers)

    @classmethod
    def at(cls, place: GroupPlace) -> "Group":
        """Return the group that an earlier agent made."""
        return cls(place.unified, place.controllers)

    @property
    def directories(self) -> list[Path]:
        """Every directory that a process of the server must be in."""
        places = [self._unified] if self._unified else []
        return list(dict.fromkeys([*places, *(path for path, _ in self._controllers.values())]))

    def cannot(self, limits: Limits) -> list[LimitKind]:
        """Return which of these limits this group cannot enforce."""
        wanted: dict[LimitKind, object] = {
            "memory": limits.memory_bytes,
            "cpu": limits.cpu_cores,
            "processes": limits.processes,
        }
        return [
            kind
            for kind, value in wanted.items()
            if value is not None and CONTROLLERS[kind] not in self._controllers
        ]

    # -- making and setting

    def make(self) -> None:
        """Make it.

        Raises:
            GroupError: If the kernel refuses.
        """
        try:
            for path in self.directories:
                path.mkdir(exist_ok=True)
        except OSError as error:
            raise GroupError(f"the control group {path} cannot be made: {error.strerror}") from None

    def apply(self, limits: Limits) -> None:
        """Put limits in force, as far as this group can.

        Raises:
            GroupError: If the kernel refuses one.
        """
        for kind, value in (
            ("memory", limits.memory_bytes),
            ("cpu", limits.cpu_cores),
            ("pids", limits.processes),
        ):
            if kind in self._controllers:
                path, version = self._controllers[kind]
                try:
                    self._set(kind, version, path, value)
                except OSError as error:
                    raise GroupError(
                        f"the kernel does not take the limit of {kind}: {error.strerror} ({path})"
                    ) from error

    @staticmethod
    def _set(kind: str, version: int, path: Path, value: float | None) -> None:
        if kind == "memory":
            setter = controls.set_memory_v1 if version == 1 else controls.set_memory_v2
            setter(path, None if value is None else int(value))
        elif kind == "cpu":
            (controls.set_cpu_v1 if version == 1 else controls.set_cpu_v2)(path, value)
        else:
            controls.set_processes(path, None if value is None else int(value))

    # -- looking

    def usage(self) -> ServerUsage:
        """Return what is used now. Limits are left empty."""
        memory = peak = processes = None
        if "memory" in self._controllers:
            path, version = self._controllers["memory"]
            read = controls.memory_use_v1 if version == 1 else controls.memory_use_v2
            memory, peak = read(path), controls.memory_peak(path)
        if "pids" in self._controllers:
            processes = controls.processes(self._controllers["pids"][0])
        counted = self._controllers.get("cpuacct") or self._controllers.get("cpu")
        place = counted[0] if counted else self._unified
        return ServerUsage(
            memory_bytes=memory,
            memory_peak_bytes=peak,
            cpu_seconds=controls.cpu_seconds(place) if place else None,
            processes=processes,
        )

    def counts(self) -> Counts:
        """Return how often limits were met; zeros once the group is gone."""
        memory, pids = (self._controllers.get(name) for name in ("memory", "pids"))
        kills = controls.memory_kills(*memory) if memory else 0
        return Counts(
            memory_kills=kills,
            memory_peak=controls.memory_peak(memory[0]) if memory and kills else None,
            refused_processes=controls.refused_processes(pids[0]) if pids else 0,
        )

    def pids(self) -> list[int]:
        """Return the processes that are in it, zombies left out."""
        for directory in self.directories:
            if (text := controls.read_text(directory / "cgroup.procs")) is not None:
                return [int(word) for word in text.split()]
        return []

    # -- ending

    def kill(self) -> int:
        """Kill whatever is in it, until nothing is; return how many were seen.

        Blocks for a moment. Whatever forks meanwhile is in it too, so nothing gets away.
        """
        seen: set[int] = set()
        deadline = time.monotonic() + KILL_SECONDS
        while pids := self.pids():
            seen.update(pids)
            if time.monotonic() > deadline:
                log.error("processes_left", group=str(self.directories[0]), pids=pids)
                break
            if not self._kill_at_once():
                self._kill_each(pids)
            time.sleep(0.005)
        return len(seen)

    def _kill_at_once(self) -> bool:
        """Use version 2's `cgroup.kill`; return whether there is one."""
        if self._unified is None:
            return False
        try:
            controls.write(self._unified / "cgroup.kill", 1)
        except OSError:  # a kernel before 5.14
            return False
        return True

    def _kill_each(self, pids: list[int]) -> None:
        if "pids" in self._controllers:
            # What cannot fork cannot run away from being killed one by one.
            controls.set_processes(self._controllers["pids"][0], 0)
        for start in range(0, len(pids), HELD_AT_ONCE):
            self._kill_some(pids[start : start + HELD_AT_ONCE])

    def _kill_some(self, pids: list[int]) -> None:
        with contextlib.ExitStack() as held:
            descriptors = {}
            for pid in pids:
                with contextlib.suppress(OSError):
                    descriptors[pid] = os.pidfd_open(pid)
                    held.callback(os.close, descriptors[pid])
            # A descriptor names one process for ever. Only if that one is in the group.
            for pid in descriptors.keys() & set(self.pids()):
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptors[pid], signal.SIGKILL)

    def remove(self) -> bool:
        """Remove it; return whether it is gone. One with processes in it stays."""
        gone = True
        for directory in self.directories:
            gone = remove_tree(directory) and gone
        return gone


def remove_tree(directory: Path) -> bool:
    """Remove a group with the groups below it; return whether it is gone."""
    try:
        for entry in directory.iterdir():
            if entry.is_dir():
                remove_tree(entry)
        directory.rmdir()
    except FileNotFoundError:
        return True
    except OSError as error:
        log.warning("group_not_removed", path=str(directory), reason=error.strerror)
        return False
    return True

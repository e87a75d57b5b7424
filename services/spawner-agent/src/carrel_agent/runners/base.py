"""What every runner does: start a server, watch it, stop it, find it again, say how it ended.

docs/runners.md is for those who write one. `ProcessRunner` has all but the start for runners whose
servers are processes below the keeper.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from signal import Signals
from typing import Any, Protocol

from carrel_agent.cgroups.group import Group, GroupPlace
from carrel_agent.cgroups.host import ControlGroups
from carrel_agent.keeper.client import KeeperClient, ProcessExit
from carrel_agent.process.launch_spec import LaunchSpec, write_launch_spec
from carrel_agent.supervise.process_tree import Tree
from carrel_agent.supervise.record import Record
from carrel_shared.clock import Clock
from carrel_shared.identity import ProcessIdentity
from carrel_shared.wire.limits import Limits


class RunnerUnavailableError(Exception):
    """This runner cannot start anything just now, and has not; the message says why."""


class LaunchUnclearError(Exception):
    """Contact was lost during a start. A process may exist: whoever holds the socket is it."""


@dataclass(frozen=True, slots=True)
class RunnerContext:
    """What a runner is made with.

    Attributes:
        keeper: Starts processes, and knows how those below it ended.
        groups: Makes control groups.
        state_dir: The agent's. Two agents of one host are told apart by it.
        python: The Python whose JupyterLab is run; empty for the agent's own.
        preload: Modules that forked servers are to find imported.
        trusted_owners: Accounts that may change the environment which servers are forked from.
        options: `[agent.runner_options.NAME]` of the settings.
    """

    keeper: KeeperClient
    clock: Clock
    groups: ControlGroups
    state_dir: Path
    python: str = ""
    zygote_idle_seconds: float = 1800
    preload: tuple[str, ...] = ()
    trusted_owners: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Launch:
    """One start.

    Attributes:
        spec: What the process needs to know.
        listener: The bound socket; the runner does not close it.
        log: Where the server prints; the runner does not close it.
        limits: To be in force before anything of the user runs.
    """

    spec: LaunchSpec
    listener: int
    log: int
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class Launched:
    """The process that was started: pid and start in clock ticks since boot.

    Attributes:
        group: The control group it was put into, if that was not known before.
    """

    pid: int
    start_ticks: int
    group: GroupPlace | None = None


class Watch(Protocol):
    """A hold on one running server."""

    identity: ProcessIdentity
    ended: asyncio.Event

    async def send(self, number: Signals) -> None:
        """Signal it, and never anything else; nothing happens if it has ended."""
        ...

    async def wait_ended(self, timeout_seconds: float | None) -> bool:
        """Wait for its end; return whether it came in time."""
        ...

    def close(self) -> None:
        """Let go of it; it goes on."""
        ...


def sealed_spec(spec: LaunchSpec) -> int:
    """Return a descriptor of a memfd with a launch spec; whoever asks closes it.

    Raises:
        RunnerUnavailableError: There is none to be had.
    """
    try:
        return write_launch_spec(spec)
    except OSError as error:
        raise RunnerUnavailableError(
            f"what it is to be told cannot be written down: {error.strerror}"
        ) from error


class Runner(Protocol):
    """One way to run servers. Servers outlive the agent, and the runner finds them again."""

    name: str

    def refusal(self, limits: Limits) -> str | None:
        """Return why these limits cannot be enforced, in words; None if they may be."""
        ...

    def group(self, server_id: str) -> Group | None:
        """Return the control group that a new process joins by itself, if that is the way."""
        ...

    async def prepare(self, record: Record) -> None:
        """Clear away what an earlier start of this server left, and make ready for this one.

        Raises:
            RunnerUnavailableError: If that fails.
        """
        ...

    async def launch(self, launch: Launch) -> Launched:
        """Start a server.

        Raises:
            RunnerUnavailableError: If it was not started.
            LaunchUnclearError: If it may have been.
        """
        ...

    async def adopt(self, record: Record) -> None:
        """Take note of a server's process, just started or found again by a new agent."""
        ...

    def watch(self, record: Record, on_end: Callable[[], None]) -> Watch:
        """Return a hold on a server; `on_end` is called once, when it has ended.

        Raises:
            ProcessGoneError: If it does not run any more.
            OSError: If it cannot be watched now.
        """
        ...

    async def end(self, record: Record, tree: Callable[[], Tree]) -> int:
        """End all that is left when the main process has ended; return how many processes.

        Args:
            record: The server.
            tree: Which processes are its own, for who has no better way to know.
        """
        ...

    async def exit_of(self, record: Record) -> ProcessExit | None:
        """Return how the main process ended, or None if nobody knows."""
        ...

    async def forget(self, record: Record) -> None:
        """Drop what is kept of a server whose end is in the journal."""
        ...

    async def change_limits(self, record: Record, limits: Limits) -> None:
        """Put other limits in force on a running server.

        Raises:
            AgentError: If one cannot be; the message says why.
        """
        ...

    async def warm(self) -> None:
        """Get ready for a start that is likely to come."""
        ...

    def helper_pids(self) -> frozenset[int]:
        """Return the processes this runner keeps for itself; they are nobody's server."""
        ...

    async def close(self) -> None:
        """Let go of those. Servers go on."""
        ...

"""What every runner does: turn a launch spec, a bound socket and a log into a process.

A runner does not watch or stop what it started: a server is a process whose parent is the keeper,
whichever way it came to be.
"""

from dataclasses import dataclass
from typing import Protocol

from carrel_agent.process.launch_spec import LaunchSpec


class RunnerUnavailableError(Exception):
    """This runner cannot start anything just now, and has not; the message says why."""


class LaunchUnclearError(Exception):
    """Contact was lost during a start. A process may exist: whoever holds the socket is it."""


@dataclass(frozen=True, slots=True)
class Launch:
    """One start.

    Attributes:
        spec: What the process needs to know.
        listener: The bound socket; the runner does not close it.
        log: Where the server prints; the runner does not close it.
    """

    spec: LaunchSpec
    listener: int
    log: int


@dataclass(frozen=True, slots=True)
class Launched:
    """The process that was started: pid and start in clock ticks since boot."""

    pid: int
    start_ticks: int


class Runner(Protocol):
    """One way to run a server."""

    name: str

    async def launch(self, launch: Launch) -> Launched:
        """Start a server.

        Raises:
            RunnerUnavailableError: If it was not started.
            LaunchUnclearError: If it may have been.
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

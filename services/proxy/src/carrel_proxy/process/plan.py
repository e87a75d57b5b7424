"""What the launcher tells the parent, and the parent itself after it has executed itself anew."""

import json
import os
import signal
from collections.abc import Iterable
from typing import Any

VERSION = 1
"""Of the state below. A launcher that finds a parent of another version cannot reload it."""

HANDOVER = "CARREL_PROXY_HANDOVER"
"""The variable by which a launcher knows that a parent runs already; JSON, see `handover`."""


SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)
"""Those that the parent follows."""


class Plan:
    """How to run. Plain data, so that it can pass through an exec.

    Attributes:
        parent: The command line of the parent.
        launcher: The command line that makes the next plan.
        worker: The command line of a worker; the parent adds the number of a descriptor.
        workers: How many.
        listeners: Descriptors of listening sockets by role and address.
        kept: Descriptors that workers need beside those, such as a file of settings.
        drain_seconds: How long requests may go on after SIGTERM.
        deadline_seconds: How long sockets may stay open after a reload.
        exit_status: Of an end by a signal.
        pid_file: Removed at the end; none if empty.
        status_file: Where it is written down who runs and how the last reload went; none if empty.
        json_lines: How to log.
        log_level: What to log.
    """

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values
        self.parent: list[str] = values["parent"]
        self.launcher: list[str] = values["launcher"]
        self.worker: list[str] = values["worker"]
        self.workers: int = values["workers"]
        self.listeners: dict[str, int] = values["listeners"]
        self.kept: list[int] = values["kept"]
        self.drain_seconds: float = values["drain_seconds"]
        self.deadline_seconds: float = values["deadline_seconds"]
        self.exit_status: int = values["exit_status"]
        self.pid_file: str = values["pid_file"]
        self.status_file: str = values["status_file"]
        self.json_lines: bool = values["json_lines"]
        self.log_level: str = values.get("log_level", "info")  # absent: an older version's plan

    @property
    def descriptors(self) -> set[int]:
        """All that its workers are given."""
        return {*self.listeners.values(), *self.kept}


class Inherited:
    """While this is entered, programs that are started get these descriptors, and no others."""

    def __init__(self, descriptors: Iterable[int]) -> None:
        self._descriptors = list(descriptors)

    def __enter__(self) -> None:
        for descriptor in self._descriptors:
            os.set_inheritable(descriptor, True)

    def __exit__(self, *_: object) -> None:
        for descriptor in self._descriptors:
            os.set_inheritable(descriptor, False)


def save_state(values: dict[str, Any]) -> int:
    """Return a descriptor from which a program executed next can read this."""
    descriptor = os.memfd_create("carrel-proxy-state", 0)
    with os.fdopen(os.dup(descriptor), "w") as file:
        json.dump(values, file)
    return descriptor


def load_state(descriptor: int) -> dict[str, Any]:
    """Read what the program before this one has left, and close it."""
    with os.fdopen(descriptor, "r+") as file:
        file.seek(0)
        values: dict[str, Any] = json.load(file)
    return values

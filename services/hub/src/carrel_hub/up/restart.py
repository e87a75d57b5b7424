"""What to do when a service has ended. Decisions only."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from carrel_shared.backoff import backoff_seconds

SETTINGS_WRONG = os.EX_CONFIG
"""The exit status by which a service says that starting it again cannot help."""

TRIES_BEFORE_FIRST_ANSWER = 3
STEADY_SECONDS = 10.0
_FIRST_SECONDS = 0.2
_LONGEST_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class End:
    """How a service ended.

    Attributes:
        status: Exit status, minus a signal's number, or None where it cannot be known.
        ran_seconds: How long it ran.
        short_runs: How many runs before this one ended early, one after another.
        ever_up: Whether it ever answered under this `carrel up`.
    """

    status: int | None
    ran_seconds: float
    short_runs: int
    ever_up: bool


@dataclass(frozen=True, slots=True)
class Again:
    """Start it once more after so many seconds."""

    seconds: float
    short_runs: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Starting it again cannot help."""

    reason: str


def after_end(end: End, *, rand: Callable[[], float]) -> Again | GiveUp:
    """Decide whether and when a service that ended is started again."""
    if end.status == SETTINGS_WRONG:
        return GiveUp("its settings cannot be used")
    short_runs = 0 if end.ran_seconds >= STEADY_SECONDS else end.short_runs + 1
    if not end.ever_up and short_runs >= TRIES_BEFORE_FIRST_ANSWER:
        return GiveUp(f"it ended {short_runs} times before it ever answered")
    wait = backoff_seconds(
        max(short_runs - 1, 0), first=_FIRST_SECONDS, longest=_LONGEST_SECONDS, rand=rand
    )
    return Again(wait, short_runs)


def in_words(status: int | None) -> str:
    """Say how a process ended."""
    if status is None:
        return "ended"
    if status < 0:
        return f"was killed by signal {-status}"
    return f"ended with status {status}"

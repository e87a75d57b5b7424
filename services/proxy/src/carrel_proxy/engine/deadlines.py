"""Time limits without a timer each: one tick looks at all that is open.

A limit is kept to the tick, which is a second or less. That is all limits on people need, and it
costs a running request nothing but an assignment.
"""

import math
from collections.abc import Callable, Iterator
from typing import Protocol

from carrel_shared.clock import Clock

NEVER = math.inf
ALWAYS = -math.inf
TICK_SECONDS = 0.5
MOST_AT_ONCE = 10
"""How many are ended in one go: well below a millisecond of work."""


class Timed(Protocol):
    """Something with a time limit."""

    deadline: float

    def timed_out(self) -> None:
        """End what took too long. Called once a tick until the deadline moves."""
        ...


class Deadlines:
    """The clock of the data plane.

    Attributes:
        now: Monotonic seconds as of the last tick; good enough for limits, and free to read.
        each_tick: Called after the limits were looked at.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._timed: set[Timed] = set()
        self.now = clock.monotonic()
        self.each_tick: list[Callable[[], None]] = []

    def add(self, timed: Timed) -> None:
        self._timed.add(timed)

    def discard(self, timed: Timed) -> None:
        self._timed.discard(timed)

    def tick(self, latest: float = NEVER) -> None:
        """Look at everything once, as `ticking` does."""
        for _ in self.ticking(latest):
            pass

    def ticking(self, latest: float = NEVER) -> Iterator[None]:
        """Look at everything once, in steps between which others may have their turn.

        Who attacks comes in thousands at once, and their time is over at once too: nobody else is
        to wait until all of them were told.

        Args:
            latest: No deadline after this has passed, whatever the time is. Deadlines are set by
                the last tick's time: when this one is late, what began just now would end at once.
        """
        self.now = now = self._clock.monotonic()
        passed = min(now, latest)
        due = [one for one in self._timed if one.deadline <= passed]
        for number, timed in enumerate(due, start=1):
            if timed.deadline <= passed and timed in self._timed:  # it may have moved on meanwhile
                timed.timed_out()
            if number % MOST_AT_ONCE == 0:
                yield
        for call in self.each_tick:
            call()

"""Time limits on a machine that is late."""

from carrel_proxy.engine.deadlines import TICK_SECONDS, Deadlines
from carrel_shared.clock import ManualClock


class Waiting:
    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.times = 0

    def timed_out(self) -> None:
        self.times += 1


def test_what_began_just_now_does_not_end_because_a_tick_is_late() -> None:
    clock = ManualClock()
    deadlines = Deadlines(clock)
    clock.advance(30)  # in which nothing was looked at; then something begins, by the old time
    waiting = Waiting(deadlines.now + 2 * TICK_SECONDS)
    deadlines.add(waiting)
    deadlines.tick(deadlines.now + TICK_SECONDS)
    assert waiting.times == 0
    clock.advance(TICK_SECONDS)
    deadlines.tick(deadlines.now + TICK_SECONDS)
    assert waiting.times == 1

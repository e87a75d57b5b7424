"""Time limits: kept, and not at the cost of everybody else."""

from carrel_proxy.engine.deadlines import MOST_AT_ONCE, NEVER, Deadlines
from carrel_shared.clock import ManualClock


class Late:
    """Something whose time is over; it notes that it was told, and is told no more."""

    def __init__(self, deadlines: Deadlines, told: list["Late"]) -> None:
        self.deadline = deadlines.now
        self._told = told
        deadlines.add(self)

    def timed_out(self) -> None:
        self._told.append(self)
        self.deadline = NEVER


def test_what_is_late_all_at_once_is_told_in_steps() -> None:
    deadlines, told = Deadlines(ManualClock()), list[Late]()
    late = [Late(deadlines, told) for _ in range(10 * MOST_AT_ONCE + 3)]
    ticked: list[int] = []
    deadlines.each_tick.append(lambda: ticked.append(len(told)))
    before = 0
    for _ in deadlines.ticking():
        assert len(told) - before <= MOST_AT_ONCE
        before = len(told)
    assert set(told) == set(late)
    assert len(told) == len(late)
    assert ticked == [len(late)]


def test_what_moved_on_or_left_between_two_steps_is_left_alone() -> None:
    deadlines, told = Deadlines(ManualClock()), list[Late]()
    late = [Late(deadlines, told) for _ in range(3 * MOST_AT_ONCE)]
    steps = deadlines.ticking()
    next(steps)
    spared = [one for one in late if one not in told][:2]
    spared[0].deadline = deadlines.now + 1
    deadlines.discard(spared[1])
    for _ in steps:
        pass
    assert set(late) - set(told) == set(spared)

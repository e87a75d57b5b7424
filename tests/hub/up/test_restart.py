"""What follows the end of a service."""

import pytest

from carrel_hub.up.restart import Again, End, GiveUp, after_end


def decide(
    status: int | None, *, ran: float = 0.1, short_runs: int = 0, ever_up: bool = True
) -> Again | GiveUp:
    return after_end(End(status, ran, short_runs, ever_up), rand=lambda: 0.0)


@pytest.mark.parametrize("ever_up", [True, False])
def test_wrong_settings_are_final(ever_up: bool) -> None:
    assert isinstance(decide(78, ever_up=ever_up), GiveUp)


@pytest.mark.parametrize("status", [0, 1, -9, -11, None])
def test_a_service_that_ran_well_is_back_at_once(status: int | None) -> None:
    assert decide(status, ran=3600, short_runs=7) == Again(0.2, 0)


def test_waits_grow_with_each_short_run_up_to_ten_seconds() -> None:
    waits = []
    short_runs = 0
    for _ in range(9):
        again = decide(1, short_runs=short_runs)
        assert isinstance(again, Again)
        waits.append(again.seconds)
        short_runs = again.short_runs
    assert waits == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0, 10.0]


def test_what_never_answered_is_given_up_at_the_third_end() -> None:
    assert isinstance(decide(1, short_runs=1, ever_up=False), Again)
    assert isinstance(decide(1, short_runs=2, ever_up=False), GiveUp)
    assert isinstance(decide(1, short_runs=2, ever_up=True), Again)

"""O11. `tests/bench/stale.py` runs the same race a hundred thousand times."""

from proxy.running import Running
from proxy.stale import race
from proxy.wire import Upstream


async def test_a_target_that_hangs_up_is_never_asked_twice_for_one_post(
    running: Running, upstream: Upstream
) -> None:
    found = await race(running, upstream, 2000, seed=1)
    assert found.wrong == []
    assert found.outcomes.keys() <= {"POST 200", "POST 503", "GET 200"}
    assert found.outcomes["POST 503"], "nobody has lost the race, so it was none"
    assert not found.seen, "the target was asked for something after its answer had come"

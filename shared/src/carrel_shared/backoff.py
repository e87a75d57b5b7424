"""How long to wait before trying again."""

import random
from collections.abc import Callable


def backoff_seconds(
    attempt: int,
    *,
    first: float = 0.2,
    longest: float = 30.0,
    rand: Callable[[], float] = random.random,
) -> float:
    """Return the wait before try number `attempt` (0 is the first retry).

    Doubles each time up to `longest`, less up to a fifth at random, so that many clients that
    lost the same peer do not come back in step.
    """
    exponent = min(max(attempt, 0), 30)
    return min(first * 2.0**exponent, longest) * (1 - 0.2 * rand())

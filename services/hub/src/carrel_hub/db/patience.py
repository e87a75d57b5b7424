"""How long who wants to write waits for others, all in all, before whoever asked is told so."""

import time
from contextvars import ContextVar

WRITE_SECONDS = 4.5
"""Of both waits: for a connection of this process, and for writers of others (FLT-D3: 5 s)."""

LEAST_SECONDS = 0.1

_since: ContextVar[float | None] = ContextVar("waits_since", default=None)


def begin_to_wait() -> None:
    """Note that a transaction of this task is about to wait for its turn."""
    _since.set(time.monotonic())


def patience_left() -> float:
    """Return how many seconds it may still wait, and forget when it began to."""
    since = _since.get()
    _since.set(None)
    waited = 0.0 if since is None else time.monotonic() - since
    return max(WRITE_SECONDS - waited, LEAST_SECONDS)

"""Connections to targets that nobody used for a while and that are kept all the same.

Opening one costs more than a request, and many people's servers are asked for something every few
seconds. What was used just now may carry any request. What waited for longer may be closed at the
other end at any moment, so it carries only what can be sent once more, which is then done.

Only connections to this machine are kept: its kernel says at once when the other end is gone. Of a
machine that vanished it does not.
"""

from typing import Protocol

MOST_KEPT = 2000
"""In all; few enough for their memory not to matter."""
MOST_KEPT_EACH = 8
"""For each target: what a browser has open at once."""


class Waits(Protocol):
    """A connection that waits in its pool."""

    def close_unused(self) -> None:
        """Take it out of its pool, and end it."""


class Kept:
    """All of one proxy's, the one that waits longest first.

    Args:
        seconds: How long a connection may be unused; 0 is never to keep one.
    """

    def __init__(self, seconds: float, most: int = MOST_KEPT) -> None:
        self.seconds = seconds
        self._most = most
        self._waiting: dict[Waits, None] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, connection: Waits) -> None:
        self._waiting[connection] = None
        self.shrink_to(self._most)

    def discard(self, connection: Waits) -> None:
        self._waiting.pop(connection, None)

    def shrink_to(self, most: int) -> None:
        """Close what waits longest, until there are no more than this."""
        while len(self._waiting) > max(most, 0):
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            oldest.close_unused()

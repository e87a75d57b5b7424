"""When something that was put off is due, by a clock that somebody may set back. Pure."""

from datetime import datetime, timedelta

LONGEST = timedelta(minutes=2)
"""Nothing is put off for longer. What seems to be was put off by a clock that was ahead."""


def is_due(at: datetime | None, now: datetime) -> bool:
    """Whether the time has come; None is at once."""
    return at is None or at <= now or at - now > LONGEST

"""The one place that reads the clock. Everything else is given a `Clock`, so tests can move it."""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Wall time for records and expiry, monotonic time for durations."""

    def now(self) -> datetime:
        """Return the current time in UTC, aware."""
        ...

    def monotonic(self) -> float:
        """Return seconds on a clock that never jumps; only differences mean anything."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


class ManualClock:
    """A clock that moves when told to, for tests."""

    def __init__(self, start: datetime | None = None) -> None:
        self._now = start or datetime(2026, 1, 1, tzinfo=UTC)
        self._monotonic = 1000.0

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def set_back(self, seconds: float) -> None:
        """Set the wall time back, as somebody does whose clock was ahead."""
        self._now -= timedelta(seconds=seconds)

    def advance(self, seconds: float) -> None:
        """Move both clocks forward."""
        self._now += timedelta(seconds=seconds)
        self._monotonic += seconds

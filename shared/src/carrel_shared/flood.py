"""A log that outsiders can make write, but not as much as they like."""

from collections.abc import MutableMapping
from typing import Any

import structlog

from carrel_shared.clock import Clock

SPAN_SECONDS = 1.0


class FloodGate:
    """Lets each event through so often a second; the next one says how many were left out.

    Events are constant names, so there are few. A processor of structlog.
    """

    def __init__(self, clock: Clock, most_a_second: int) -> None:
        self._clock = clock
        self._most = most_a_second
        self._spans: dict[str, tuple[float, int]] = {}

    def __call__(
        self, _logger: Any, _method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        name, now = str(event.get("event", "")), self._clock.monotonic()
        began, seen = self._spans.get(name, (now, 0))
        if now - began >= SPAN_SECONDS:
            if seen > self._most:
                event["left_out"] = seen - self._most
            began, seen = now, 0
        self._spans[name] = (began, seen + 1)
        if seen >= self._most:
            raise structlog.DropEvent
        return event

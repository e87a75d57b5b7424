"""Counters under the names that configurable-http-proxy has, for Prometheus."""

from collections import deque
from collections.abc import Iterable, Iterator
from math import ceil
from typing import Any

from carrel_proxy.core.exposition import Family, Sample, counter, counters

RECENT = 1000
"""Of so many observations the quantiles are."""

_QUANTILES = (0.01, 0.05, 0.5, 0.9, 0.95, 0.99, 0.999)
_STATUSES = 600
_SUMMARIES = {
    "find_target_for_req": "Seconds to find a request's route; 200 a second at most are timed",
    "last_activity_updating": "Seconds to note a route's use: an assignment, so none; counted are"
    " routes that were added and answers below 300",
}


class Summary:
    """Seconds that something took: how often, together, and the last ones."""

    __slots__ = ("number", "recent", "total")

    def __init__(self) -> None:
        self.number = 0
        self.total = 0.0
        self.recent: deque[float] = deque(maxlen=RECENT)

    def observe(self, seconds: float) -> None:
        self.number += 1
        self.total += seconds
        self.recent.append(seconds)


class Metrics:
    """What has been counted since the start, beside what the engine counts by itself.

    Attributes:
        proxied: Answers of the public side, by status.
        api: Answers of the REST API, by status.
    """

    __slots__ = (
        "api",
        "api_route_add",
        "api_route_delete",
        "api_route_get",
        "find_target_for_req",
        "last_activity_updating",
        "proxied",
        "requests_web",
        "requests_ws",
    )

    def __init__(self) -> None:
        self.api_route_get = 0
        self.api_route_add = 0
        self.api_route_delete = 0
        self.requests_ws = 0
        self.requests_web = 0
        self.proxied = [0] * _STATUSES
        self.api = [0] * _STATUSES
        self.find_target_for_req = Summary()
        self.last_activity_updating = Summary()

    def snapshot(self) -> dict[str, Any]:
        """Return it all as JSON has it, for `merge` and `families`."""
        found: dict[str, Any] = {name: getattr(self, name) for name in _COUNTERS}
        for name in ("proxied", "api"):
            found[name] = {
                str(status): number for status, number in enumerate(getattr(self, name)) if number
            }
        for name in _SUMMARIES:
            summary: Summary = getattr(self, name)
            found[name] = [summary.number, summary.total, list(summary.recent)]
        return found


_COUNTERS = {
    "api_route_get": "Requests for routes",
    "api_route_add": "Routes added",
    "api_route_delete": "Routes deleted",
    "requests_ws": "WebSocket handshakes",
    "requests_web": "Requests that are no WebSocket handshakes",
}


def merge(many: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return several workers' snapshots as one proxy's; there is at least one."""
    first, *others = many
    merged = dict(first)
    for other in others:
        for name, value in other.items():
            mine = merged[name]
            if isinstance(value, dict):
                merged[name] = {
                    key: mine.get(key, 0) + value.get(key, 0) for key in {**mine, **value}
                }
            elif isinstance(value, list):
                merged[name] = [a + b for a, b in zip(mine, value, strict=True)]
            else:
                merged[name] = mine + value
    return merged


def families(snapshot: dict[str, Any]) -> Iterator[Family]:
    """Yield what is shown. Counters have no `_total`: the original's have none."""
    for name, words in _COUNTERS.items():
        yield counter(name, words, snapshot[name])
    yield _by_status("requests_proxy", "Answers of the public side by status", snapshot["proxied"])
    yield _by_status("requests_api", "Answers of the REST API by status", snapshot["api"])
    for name, words in _SUMMARIES.items():
        number, total, recent = snapshot[name]
        if name == "last_activity_updating":
            number = snapshot["api_route_add"] + _uses(snapshot["proxied"])
        in_order = sorted(recent)
        samples = [
            Sample(_quantile(in_order, share), {"quantile": str(share)}) for share in _QUANTILES
        ]
        samples += [Sample(total, suffix="_sum"), Sample(number, suffix="_count")]
        yield Family(name, "summary", words, samples)


def _uses(proxied: dict[str, int]) -> int:
    return sum(number for status, number in proxied.items() if 200 <= int(status) < 300)


def _by_status(name: str, words: str, numbers: dict[str, int]) -> Family:
    return counters(name, words, "status", dict(sorted(numbers.items())))


def _quantile(in_order: list[float], share: float) -> float:
    return in_order[max(ceil(share * len(in_order)) - 1, 0)] if in_order else 0.0

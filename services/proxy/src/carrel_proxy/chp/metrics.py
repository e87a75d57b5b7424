"""Counters in the text format of Prometheus, under the names configurable-http-proxy has."""

from collections import Counter
from time import process_time

_HELP = {
    "api_route_get": "Requests for routes",
    "api_route_add": "Routes added",
    "api_route_delete": "Routes deleted",
    "requests_ws": "WebSocket handshakes",
    "requests_web": "Requests that are no WebSocket handshakes",
}
_BY_STATUS = {
    "requests_proxy": "Answers of the public side by status",
    "requests_api": "Answers of the REST API by status",
}
_SUMMARIES = {
    "find_target_for_req": "Seconds to find a request's route",
    "last_activity_updating": "Seconds to note a route's use",
}


class Metrics:
    """What has been counted since the start."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._statuses: dict[str, Counter[int]] = {name: Counter() for name in _BY_STATUS}
        self._sums: dict[str, list[float]] = {name: [0.0, 0] for name in _SUMMARIES}

    def count(self, name: str) -> None:
        self._counts[name] += 1

    def answered(self, name: str, status: int) -> None:
        self._statuses[name][status] += 1

    def observe(self, name: str, seconds: float) -> None:
        summary = self._sums[name]
        summary[0] += seconds
        summary[1] += 1

    def text(self) -> str:
        """Return the whole page."""
        lines = []
        for name, words in _HELP.items():
            lines += [f"# HELP {name} {words}", f"# TYPE {name} counter"]
            lines.append(f"{name} {self._counts[name]}")
        for name, words in _BY_STATUS.items():
            lines += [f"# HELP {name} {words}", f"# TYPE {name} counter"]
            lines += [
                f'{name}{{status="{status}"}} {number}'
                for status, number in sorted(self._statuses[name].items())
            ]
        for name, words in _SUMMARIES.items():
            total, number = self._sums[name]
            lines += [f"# HELP {name} {words}", f"# TYPE {name} summary"]
            lines += [f"{name}_sum {total:.6f}", f"{name}_count {int(number)}"]
        lines.append("# HELP process_cpu_seconds_total Seconds of processor time used")
        lines.append("# TYPE process_cpu_seconds_total counter")
        lines.append(f"process_cpu_seconds_total {process_time():.3f}")
        return "\n".join(lines) + "\n"

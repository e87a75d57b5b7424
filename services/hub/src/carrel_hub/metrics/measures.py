"""What this process measured: how long requests, starts, stops and sign-ins took.

Durations are each process's own, as Prometheus expects of replicas: it adds them up, and knows a
restart when it sees one. What there is at the moment is never counted here but read from the
database (`carrel_hub.metrics.counts`). Names and labels are JupyterHub's (contract 11); a label is
never anything that a client or a person chose.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_START_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60, 120, 180, 300, 600)
_STOP_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

_CAUSES = frozenset(
    {"exited", "signalled", "out_of_memory", "never_ready", "start_failed", "unknown", "stopped"}
)


class Measures:
    """The histograms and counters of one hub process.

    Args:
        prefix: What all of JupyterHub's names begin with.
    """

    def __init__(self, prefix: str = "jupyterhub") -> None:
        self.registry = CollectorRegistry()
        self.prefix = prefix
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self._requests = self._histogram(
            "request_duration_seconds",
            "Time to answer a request, by what answered it.",
            ("method", "handler", "code"),
        )
        self._starts = self._histogram(
            "server_spawn_duration_seconds",
            "Time from when a start was let in to what came of it.",
            ("status", "reason"),
            _START_BUCKETS,
        )
        self._stops = self._histogram(
            "server_stop_seconds",
            "Time from when a stop was asked for to when no process was left.",
            ("status",),
            _STOP_BUCKETS,
        )
        self._sign_ins = self._histogram(
            "login_duration_seconds", "Time to judge a name and a password.", ("status",)
        )
        self._sign_outs = self._histogram("logout_duration_seconds", "Time to sign a browser out.")
        self._startup = self._histogram(
            "hub_startup_duration_seconds",
            "Time from the start to the first answer.",
        )
        self._reports = Counter(
            "csp_reports",
            "Reports of browsers that a page broke its own rules.",
            namespace=prefix,
            registry=self.registry,
        )
        self._answered: dict[tuple[object, ...], Callable[[float], None]] = {}
        for status in ("success", "failure"):
            self._starts.labels(status, "")
            self._stops.labels(status)
            self._sign_ins.labels(status)

    def answered(
        self, method: str, endpoint: Callable[..., object] | None, code: int, seconds: float
    ) -> None:
        """Note an answer.

        Args:
            endpoint: The function that made it; None when no route was taken.
        """
        key = (method if method in METHODS else "OTHER", endpoint, code)
        observe = self._answered.get(key)
        if observe is None:
            name = f"{endpoint.__module__}.{endpoint.__name__}" if endpoint is not None else ""
            child = self._requests.labels(key[0], name, str(code))
            observe = self._answered[key] = child.observe
        observe(seconds)

    def happened(self, events: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """Note what the events of a transaction that was committed say of durations."""
        for kind, data in events:
            seconds = data.get("seconds")
            if not isinstance(seconds, int | float):
                continue
            if kind == "server.ready":
                self._starts.labels("success", "").observe(seconds)
            elif kind == "server.failed":
                cause = data.get("cause")
                reason = cause if cause in _CAUSES else "other"
                self._starts.labels("failure", reason).observe(seconds)
            elif kind == "server.stopped":
                self._stops.labels("success").observe(seconds)

    def refused_start(self, reason: str) -> None:
        """Note a start that was refused: `throttled` or `too-many-users`."""
        self._starts.labels("failure", reason).observe(0)

    def signed_in(self, seconds: float, *, success: bool) -> None:
        """Note that a name and a password were judged."""
        self._sign_ins.labels("success" if success else "failure").observe(seconds)

    def signed_out(self, seconds: float) -> None:
        """Note that a browser was signed out."""
        self._sign_outs.observe(seconds)

    def started(self, seconds: float) -> None:
        """Note that this process serves."""
        self._startup.observe(seconds)

    def rule_broken(self) -> None:
        """Note a report of a browser."""
        self._reports.inc()

    def _histogram(
        self,
        name: str,
        words: str,
        labels: Sequence[str] = (),
        buckets: Sequence[float] = Histogram.DEFAULT_BUCKETS,
    ) -> Histogram:
        return Histogram(
            name,
            words,
            labels,
            namespace=self.prefix,
            registry=self.registry,
            buckets=buckets,
        )

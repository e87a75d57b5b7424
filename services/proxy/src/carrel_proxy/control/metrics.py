"""The proxy's numbers for Prometheus. Labels have few values: never a path, a user or a server."""

import hmac
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from carrel_proxy import __version__
from carrel_proxy.core.exposition import (
    CONTENT_TYPE,
    Family,
    Sample,
    counter,
    counters,
    gauge,
    histogram,
    render,
)
from carrel_shared.wire.counters import ProcessUse, ProxyTotals
from carrel_shared.wire.routes import TableStatus

PATH = "/metrics"


def page(totals: ProxyTotals, status: TableStatus) -> str:
    """Return all of one proxy's numbers."""
    return render((*families(totals), *table_families(status), *process_families(totals.process)))


def families(totals: ProxyTotals) -> Iterator[Family]:
    """Yield what the data plane counted."""
    yield Family(
        "carrel_proxy_build_info",
        "gauge",
        "Which version runs; always 1.",
        [Sample(1, {"version": __version__})],
    )
    yield Family(
        "carrel_proxy_requests_total",
        "counter",
        "Requests that ended, by kind and class of status; none: the client left before.",
        [
            Sample(number, {"kind": kind, "status": status})
            for kind, by_status in totals.requests.items()
            for status, number in by_status.items()
        ],
    )
    yield counters(
        "carrel_proxy_own_answers_total",
        "Answers that the proxy gave by itself, by reason.",
        "reason",
        totals.own_answers,
    )
    yield counters(
        "carrel_proxy_received_bytes_total",
        "Bytes from clients, heads of messages left out.",
        "carrier",
        {"body": totals.received_bytes, "websocket": totals.socket_received_bytes},
    )
    yield counters(
        "carrel_proxy_sent_bytes_total",
        "Bytes to clients, heads of messages left out.",
        "carrier",
        {"body": totals.sent_bytes, "websocket": totals.socket_sent_bytes},
    )
    yield histogram(
        "carrel_proxy_first_byte_seconds",
        "From the head of a forwarded request to that of its answer; up to 200 a second.",
        totals.first_byte.bounds,
        totals.first_byte.counts,
        totals.first_byte.seconds,
    )
    for name, words, value in (
        ("connections", "Connections of clients accepted.", totals.connections_accepted),
        ("websockets", "WebSockets opened.", totals.sockets_opened),
        ("upstream_connections", "Connections to targets opened.", totals.upstream_opened),
        ("upstream_failures", "Connections to targets that failed.", totals.upstream_failed),
        ("upstream_reuses", "Requests over a kept connection.", totals.upstream_reused),
        ("retries", "Requests sent to a target again.", totals.retries),
        ("responses_cut", "Responses that ended in the middle.", totals.responses_cut),
        ("verdict_hits", "Requests that a known verdict let pass.", totals.verdict_hits),
        ("verdict_misses", "Requests that waited for the hub's verdict.", totals.verdict_misses),
        ("verdict_asks", "Verdicts asked of the hub.", totals.verdict_asks),
        ("revocations", "Revocations applied.", totals.revocations),
        ("log_lines_left_out", "Lines of the access log left out.", totals.log_left_out),
    ):
        yield counter(f"carrel_proxy_{name}_total", words, value)
    for name, words, value in (
        ("connections_open", "Open connections of clients.", totals.connections_open),
        ("requests_open", "Requests under way.", totals.requests_open),
        ("websockets_open", "Open WebSockets.", totals.sockets_open),
        (
            "upstream_connections_open",
            "Connections to targets, kept or used, but those of WebSockets.",
            totals.upstream_open,
        ),
        ("verdicts_kept", "Verdicts remembered.", totals.verdicts_kept),
    ):
        yield gauge(f"carrel_proxy_{name}", words, value)


def table_families(status: TableStatus) -> Iterator[Family]:
    """Yield where the route table stands."""
    yield gauge("carrel_proxy_routes", "Routes in force.", status.routes)
    yield gauge("carrel_proxy_table_number", "Number of the hub's last change.", status.number)


def process_families(use: ProcessUse) -> Iterator[Family]:
    """Yield what every exporter says of its process, under the usual names."""
    seconds = "processor time used, in seconds."
    user, system = use.cpu_user_seconds, use.cpu_system_seconds
    yield counter("process_cpu_user_seconds_total", f"User {seconds}", user)
    yield counter("process_cpu_system_seconds_total", f"System {seconds}", system)
    yield counter("process_cpu_seconds_total", f"All {seconds}", user + system)
    yield gauge(
        "process_start_time_seconds",
        "When the process began, in seconds since the epoch.",
        use.started_at.timestamp(),
    )
    yield gauge("process_resident_memory_bytes", "Memory in use.", use.resident_bytes)
    yield gauge("process_virtual_memory_bytes", "Address space in use.", use.virtual_bytes)
    yield gauge("process_open_fds", "Open file descriptors.", use.open_descriptors)
    yield gauge("process_max_fds", "File descriptors allowed.", use.most_descriptors)


class MetricsPage:
    """`/metrics`, and nothing else. An ASGI application.

    Args:
        text: Returns the page.
        key: What callers show as bearer token; None lets everybody who reaches it read.
    """

    def __init__(self, text: Callable[[], Awaitable[str]], key: str | None = None) -> None:
        self._text = text
        self._shown = b"Bearer " + key.encode("utf-8") if key is not None else None

    async def __call__(self, scope: Any, _receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        if not self._may_read(scope["headers"]):
            words = "show metrics_key as Authorization: Bearer KEY"
            await _reply(send, 401, words, (b"www-authenticate", b"Bearer"))
        elif scope["path"] != PATH or scope["method"] not in ("GET", "HEAD"):
            await _reply(send, 404, f"there is nothing here but {PATH}")
        else:
            kind = (b"content-type", CONTENT_TYPE.encode("ascii"))
            await _reply(send, 200, await self._text(), kind)

    def _may_read(self, headers: list[tuple[bytes, bytes]]) -> bool:
        if self._shown is None:
            return True
        values = [value for name, value in headers if name == b"authorization"]
        return len(values) == 1 and hmac.compare_digest(values[0], self._shown)


async def _reply(send: Any, status: int, text: str, *fields: tuple[bytes, bytes]) -> None:
    body = text.encode("utf-8")
    headers = [(b"content-length", b"%d" % len(body)), (b"cache-control", b"no-store"), *fields]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

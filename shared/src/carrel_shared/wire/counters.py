"""What a proxy has counted, for dashboards and for the hub's idea of who is active."""

from pydantic import Field

from carrel_shared.wire.base import ServerId, Timestamp, WireReply
from carrel_shared.wire.routes import TableStatus


class FirstByteTimes(WireReply):
    """How long forwarded requests took from their head to the head of their answer.

    Where there are many, 200 a second are timed.

    Attributes:
        bounds: Upper bounds in seconds, ascending; the last of `counts` is what is above all.
        counts: Requests for each bound, each counted once.
        seconds: All of them together.
    """

    bounds: list[float]
    counts: list[int]
    seconds: float


class ProcessUse(WireReply):
    """What the proxy's processes use of their machine."""

    cpu_user_seconds: float
    cpu_system_seconds: float
    resident_bytes: int
    virtual_bytes: int
    open_descriptors: int
    most_descriptors: int
    started_at: Timestamp


class ProxyTotals(WireReply):
    """Everything a proxy counts, all routes together. Numbers only grow, but those named `open`.

    Attributes:
        since: When counting began.
        requests: Those that ended, by kind (`read`, `write`, `upgrade`) and class of status
            (`2xx`; `none` when the client left before an answer began).
        own_answers: Answers that the proxy gave itself, by reason.
        received_bytes: Bodies of requests. What sockets carry is not in it.
        sent_bytes: Bodies of responses, with the framing of chunked ones.
        socket_received_bytes: What clients sent through WebSockets.
        requests_open: Requests under way.
        sockets_opened: WebSockets.
        upstream_open: Connections to targets, but those of open WebSockets.
        retries: Requests sent again: a kept connection had ended, or another target was asked.
        responses_cut: Responses whose end did not come, so that the client was cut off.
        verdict_hits: Requests that a known verdict let pass.
        verdict_misses: Requests that had to wait for the hub.
        verdict_asks: Questions to the hub, those in the background too.
        verdicts_kept: How many are remembered.
        log_left_out: Lines of the access log that were too many, or could not be written.
    """

    since: Timestamp
    requests: dict[str, dict[str, int]]
    own_answers: dict[str, int]
    received_bytes: int
    sent_bytes: int
    socket_received_bytes: int
    socket_sent_bytes: int
    connections_accepted: int
    connections_open: int
    requests_open: int
    sockets_opened: int
    sockets_open: int
    upstream_opened: int
    upstream_open: int
    upstream_reused: int
    upstream_failed: int
    retries: int
    responses_cut: int
    verdict_hits: int
    verdict_misses: int
    verdict_asks: int
    verdicts_kept: int
    revocations: int
    log_left_out: int
    first_byte: FirstByteTimes
    process: ProcessUse


class RouteActivity(WireReply):
    """What one route has carried since it was made or its target changed.

    Attributes:
        server_id: The server behind it, if the proxy guards it.
        sockets: Open WebSockets.
        last_activity: To half a second; None if it was never used.
    """

    prefix: str
    server_id: ServerId | None = None
    requests: int
    sockets: int
    received_bytes: int
    sent_bytes: int
    last_activity: Timestamp | None = None


class ProxyCounters(WireReply):
    """The answer to `GET /control/v1/counters`.

    Attributes:
        routes: In the order of their prefixes.
        next: Ask with `after` set to this for more; None when that was all.
    """

    totals: ProxyTotals
    table: TableStatus
    routes: list[RouteActivity] = Field(default_factory=list)
    next: str | None = None

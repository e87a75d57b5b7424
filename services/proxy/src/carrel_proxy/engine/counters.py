"""What the data plane counts. Plain numbers that grow, on objects that the code has in hand.

Counting is on the path of every request, so there are no labels to look up, no locks (one loop
counts) and, for a plain GET, no calls. What is under way is not in these numbers: whoever reads
them adds what the open exchanges and tunnels hold (`carrel_proxy.control.counted`).
"""

from bisect import bisect_left
from collections import Counter

FIRST_BYTE_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Seconds. The loop's clock is good to a millisecond, so finer ones would say nothing."""

_STATUSES = 600

_SAFE_METHODS = frozenset((b"GET", b"HEAD", b"OPTIONS"))


class Counters:
    """Since the start of this process. `carrel_shared.wire.counters` says what each name means.

    Attributes:
        reads: Ended requests with a method that changes nothing, by status; 0 is one whose client
            left before an answer began.
        writes: All others but WebSocket handshakes, likewise.
        upgrades: WebSocket handshakes, likewise.
        own: Answers of the proxy's own by reason.
        first_byte: Requests for each of `FIRST_BYTE_BOUNDS`, and above.
    """

    __slots__ = (
        "connections",
        "cut",
        "first_byte",
        "first_byte_seconds",
        "own",
        "reads",
        "received",
        "retries",
        "revocations",
        "sent",
        "socket_received",
        "socket_sent",
        "sockets",
        "upgrades",
        "upstream_closed",
        "upstream_failed",
        "upstream_opened",
        "upstream_reused",
        "verdict_asks",
        "verdict_hits",
        "verdict_misses",
        "writes",
    )

    def __init__(self) -> None:
        self.reads = [0] * _STATUSES
        self.writes = [0] * _STATUSES
        self.upgrades = [0] * _STATUSES
        self.own: Counter[str] = Counter()
        self.first_byte = [0] * (len(FIRST_BYTE_BOUNDS) + 1)
        self.first_byte_seconds = 0.0
        self.connections = 0
        self.cut = 0
        self.received = 0
        self.sent = 0
        self.retries = 0
        self.revocations = 0
        self.sockets = 0
        self.socket_received = 0
        self.socket_sent = 0
        self.upstream_opened = 0
        self.upstream_closed = 0
        self.upstream_failed = 0
        self.upstream_reused = 0
        self.verdict_asks = 0
        self.verdict_hits = 0
        self.verdict_misses = 0

    def ended(self, method: bytes, status: int, *, websocket: bool) -> None:
        """A request ended that was no plain GET."""
        if websocket:
            self.upgrades[status] += 1
        elif method in _SAFE_METHODS:
            self.reads[status] += 1
        else:
            self.writes[status] += 1

    def answer_began(self, seconds: float) -> None:
        """A target's answer began so long after its request."""
        self.first_byte_seconds += seconds
        self.first_byte[bisect_left(FIRST_BYTE_BOUNDS, seconds)] += 1

"""The routes that the REST API keeps: as they were posted, and as requests are matched by them."""

import re
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from carrel_proxy.chp.targets import Target, read_target
from carrel_proxy.core.headers import heads_for
from carrel_proxy.core.trie import RouteTrie
from carrel_proxy.engine.counters import Counters
from carrel_proxy.engine.deadlines import Deadlines
from carrel_proxy.engine.kept import Kept
from carrel_proxy.engine.routes import LiveRoute
from carrel_proxy.engine.upstream import Pool
from carrel_proxy.errors import BadTargetError
from carrel_shared.clock import Clock

TlsForTargets = Callable[[], ssl.SSLContext]

_NEVER_SEGMENTS = frozenset((b"", b".", b".."))


class Use:
    """When something was last used; monotonic seconds."""

    __slots__ = ("at",)

    def __init__(self) -> None:
        self.at = 0.0


class ChpRoute(LiveRoute):
    """One route. Nobody is checked: who is behind it does that.

    Attributes:
        key: The path it was posted under, decoded.
        place: The same in parts; with host routing the host is the first.
        data: The object that was posted.
        target: Where it leads; None for the one that stands for no route.
        use: Its last use. It is the same object for a route that is posted in its place, so that
            what was open before counts for that.
    """

    __slots__ = ("_clock", "_monotonic", "_told", "data", "key", "place", "target", "use")

    def __init__(
        self,
        key: str,
        segments: list[bytes],
        data: dict[str, Any],
        target: Target | None,
        pools: list[Pool],
        *,
        deadlines: Deadlines,
        clock: Clock,
        use: "Use | None" = None,
    ) -> None:
        self.key = key
        self.data = data
        self.target = target
        self.place = segments
        self.depth = len(segments)
        self.prefix = key
        self.prefix_bytes = b"/"
        self.access = None
        self.fence = None
        self.secret_fields = b""
        self.pools = pools
        self.several = False
        self.awake = True
        self.requests = self.sockets = self.received = self.sent = 0
        self._clock = clock
        self._monotonic = clock.monotonic
        self.use = use or Use()
        self.used = clock.monotonic()
        self._told = (self.used, clock.now())
        self._deadlines = deadlines
        self._logged = float("-inf")
        self.heads = heads_for(None)
        self.most_connections = 0

    @property
    def spawn(self) -> str | None:
        """Nothing here knows how to start what is behind a route."""
        return None

    @property
    def active_at(self) -> float | None:
        """Not kept: `used_at` is, since what the API says is finer than a tick."""
        return None

    @active_at.setter
    def active_at(self, _ticks: float | None) -> None:
        self.use.at = self._monotonic()

    @property
    def used(self) -> float:
        """When it was last used, or made; monotonic seconds."""
        return self.use.at

    @used.setter
    def used(self, at: float) -> None:
        self.use.at = at

    @property
    def used_at(self) -> datetime:
        """When it was last used, or made. It is worked out once for each use, so that whoever asks
        twice is not told two times that differ by as long as the asking took."""
        used = self.use.at
        if self._told[0] != used:
            ago = timedelta(seconds=self._monotonic() - used)
            self._told = (used, self._clock.now() - ago)
        return self._told[1]

    def shown(self) -> dict[str, Any]:
        """Return what the API says of this route."""
        return {**self.data, "last_activity": format_time(self.used_at)}


class ChpTable:
    """What is in force. A change is, once the call returns.

    Attributes:
        trie: By segments; with host routing the host is the first.
        nowhere: Stands for the route that a request has not.
    """

    def __init__(
        self,
        deadlines: Deadlines,
        clock: Clock,
        *,
        tls: TlsForTargets,
        counters: Counters,
        host_routing: bool = False,
        connect_seconds: float = 5.0,
        idle_seconds: float = 4.0,
        kept: Kept | None = None,
    ) -> None:
        self.trie: RouteTrie[ChpRoute] = RouteTrie()
        self._routes: dict[str, ChpRoute] = {}
        self._deadlines = deadlines
        self._clock = clock
        self._tls = tls
        self._counters = counters
        self._host_routing = host_routing
        self._connect_seconds = connect_seconds
        self._idle_seconds = idle_seconds
        self._kept = kept
        self.nowhere = ChpRoute("", [], {}, None, [], deadlines=deadlines, clock=clock)

    def put(self, key: str, data: dict[str, Any], used: float | None = None) -> None:
        """Add a route, or replace the whole of the one with this key.

        Args:
            key: As `clean_key` returns it.
            data: With a string `target`; kept as it is.
            used: When it was made or used, monotonic seconds; None for now.

        Raises:
            BadTargetError: If no request can match the key, or the target cannot be used.
        """
        segments = self._segments(key)
        target = read_target(data["target"])
        pool = Pool(
            target.address,
            None,
            self._deadlines,
            connect_seconds=self._connect_seconds,
            idle_seconds=self._idle_seconds,
            tls=self._tls() if target.https else None,
            counters=self._counters,
            kept=self._kept,
        )
        if self._host_routing and segments:
            data = {**data, "host": key.split("/")[1]}
        old = self._routes.get(key)
        route = ChpRoute(
            key,
            segments,
            data,
            target,
            [pool],
            deadlines=self._deadlines,
            clock=self._clock,
            use=old.use if old is not None else None,
        )
        route.used = route.used if used is None else used
        self._routes[key] = route
        self.trie.put_at(segments, route)
        if old is not None:
            old.close()

    def get(self, key: str) -> ChpRoute | None:
        return self._routes.get(key)

    def delete(self, key: str) -> bool:
        """Remove a route; False if there is none. More specific ones stay."""
        route = self._routes.pop(key, None)
        if route is None:
            return False
        self.trie.remove_at(route.place)
        route.close()
        return True

    def shown(self, inactive_since: datetime | None = None) -> dict[str, dict[str, Any]]:
        """Return the routes, all or those not used since a moment."""
        return {
            key: route.shown()
            for key, route in self._routes.items()
            if inactive_since is None or route.used_at < inactive_since
        }

    def posted(self) -> dict[str, dict[str, Any]]:
        """Return the routes as they were posted."""
        return {key: route.data for key, route in self._routes.items()}

    def used(self) -> dict[str, float]:
        """Return when each route was last used; monotonic seconds, the same in all processes."""
        return {key: route.used for key, route in self._routes.items()}

    def note_used(self, key: str, at: float) -> None:
        """Note that a route was used, perhaps by another worker."""
        if (route := self._routes.get(key)) is not None:
            route.used = max(route.used, at)

    def close(self) -> None:
        for route in self._routes.values():
            route.close()

    def _segments(self, key: str) -> list[bytes]:
        if key == "/":
            return []
        segments = key.encode("utf-8").split(b"/")[1:]
        for segment in segments:
            if segment in _NEVER_SEGMENTS or b"\x00" in segment:
                raise BadTargetError("a route has no empty or dot segments, and no null characters")
        if self._host_routing:
            segments[0] = segments[0].lower()
        return segments


def clean_key(path: bytes) -> str:
    """Return the key that a percent-decoded path names: one slash before, none after.

    Raises:
        UnicodeDecodeError: If it is not UTF-8.
    """
    key = path.decode("utf-8")
    if not key.startswith("/"):
        key = "/" + key
    return key[:-1] if len(key) > 1 and key.endswith("/") else key


def format_time(moment: datetime) -> str:
    """Return a moment as the API writes it: UTC, with milliseconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + (
        f"{moment.microsecond // 1000:03d}Z"
    )


def parse_time(text: str) -> datetime:
    """Read a moment in ISO 8601, a year or a month being its beginning, or as in HTTP's `Date`;
    without a zone it is UTC.

    Raises:
        ValueError: If it is none.
    """
    text = text.strip()
    if _MONTH.fullmatch(text):
        text += "-01-01"[len(text) - 4 :]
    if _ISO.fullmatch(text):
        moment = datetime.fromisoformat(text.upper())
    else:
        moment = parsedate_to_datetime(text)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


_MONTH = re.compile(r"[0-9]{4}(-[0-9]{2})?")
_ISO = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"(?:[Tt ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?(?:[Zz]|[+\-][0-9]{2}:?[0-9]{2})?)?"
)

"""What was counted, as it is asked for: totals, what each route carried, several workers as one."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from carrel_proxy.access.verdicts import Verdicts
from carrel_proxy.engine.counters import FIRST_BYTE_BOUNDS
from carrel_proxy.engine.edge import Edge
from carrel_proxy.engine.exchange import Exchange
from carrel_proxy.engine.process import process_use
from carrel_proxy.engine.routes import LiveRoute
from carrel_proxy.engine.tunnel import Tunnel
from carrel_shared.clock import Clock
from carrel_shared.wire.counters import FirstByteTimes, ProxyTotals, RouteActivity
from carrel_shared.wire.routes import Route

_SUMMED = (int, float)


class Counted:
    """Reads what one process has counted. Nothing of it is on a request's path."""

    def __init__(self, edge: Edge, clock: Clock, verdicts: Verdicts | None = None) -> None:
        self._edge = edge
        self._clock = clock
        self._verdicts = verdicts
        self._since = clock.now()

    def totals(self) -> ProxyTotals:
        """Return everything, with what is under way."""
        counters = self._edge.counters
        exchanges, tunnels = self._edge.exchanges, self._edge.tunnels
        return ProxyTotals(
            since=self._since,
            requests={
                kind: _by_class(numbers)
                for kind, numbers in (
                    ("read", counters.reads),
                    ("write", counters.writes),
                    ("upgrade", counters.upgrades),
                )
            },
            own_answers={str(reason): number for reason, number in counters.own.items()},
            received_bytes=counters.received + sum(one.received for one in exchanges),
            sent_bytes=counters.sent + sum(one.sent for one in exchanges),
            socket_received_bytes=counters.socket_received + sum(one.received for one in tunnels),
            socket_sent_bytes=counters.socket_sent + sum(one.sent for one in tunnels),
            connections_accepted=counters.connections,
            connections_open=self._edge.connections,
            requests_open=len(exchanges),
            sockets_opened=counters.sockets,
            sockets_open=len(tunnels),
            upstream_opened=counters.upstream_opened,
            upstream_open=counters.upstream_opened - counters.upstream_closed,
            upstream_reused=counters.upstream_reused,
            upstream_failed=counters.upstream_failed,
            retries=counters.retries,
            responses_cut=counters.cut,
            verdict_hits=counters.verdict_hits,
            verdict_misses=counters.verdict_misses,
            verdict_asks=counters.verdict_asks,
            verdicts_kept=len(self._verdicts) if self._verdicts is not None else 0,
            revocations=counters.revocations,
            log_left_out=log.left_out if (log := self._edge.access_log) is not None else 0,
            first_byte=FirstByteTimes(
                bounds=list(FIRST_BYTE_BOUNDS),
                counts=list(counters.first_byte),
                seconds=counters.first_byte_seconds,
            ),
            process=process_use(self._clock),
        )

    def routes(
        self,
        routes: Iterable[LiveRoute],
        *,
        active_since: datetime | None = None,
        limit: int,
    ) -> list[RouteActivity]:
        """Return what the first routes carried, those alone that are in use or were since then."""
        now, ticks = self._clock.now(), self._clock.monotonic()
        flowing = self._flowing()
        found: list[RouteActivity] = []
        for route in routes:
            if len(found) == limit:
                break
            if not route.awake:
                if active_since is None:
                    found.append(_unused(route.wire))
                continue
            at = route.active_at
            last = now - timedelta(seconds=max(ticks - at, 0)) if at is not None else None
            received, sent = flowing.get(route, (0, 0))
            in_use = route.sockets or route in flowing
            if active_since is not None and not in_use and (last is None or last < active_since):
                continue
            found.append(
                RouteActivity(
                    prefix=route.prefix,
                    server_id=route.access.server_id if route.access is not None else None,
                    requests=route.requests,
                    sockets=route.sockets,
                    received_bytes=route.received + received,
                    sent_bytes=route.sent + sent,
                    last_activity=last,
                )
            )
        return found

    def _flowing(self) -> dict[LiveRoute, tuple[int, int]]:
        """Return the bytes that what is under way has carried so far."""
        found: dict[LiveRoute, tuple[int, int]] = {}
        open_now: list[Exchange | Tunnel] = [*self._edge.exchanges, *self._edge.tunnels]
        for one in open_now:
            received, sent = found.get(one.route, (0, 0))
            found[one.route] = (received + one.received, sent + one.sent)
        return found


def _unused(route: Route) -> RouteActivity:
    return RouteActivity(
        prefix=route.prefix,
        server_id=route.access.server_id if route.access is not None else None,
        requests=0,
        sockets=0,
        received_bytes=0,
        sent_bytes=0,
    )


def _by_class(by_status: list[int]) -> dict[str, int]:
    """Return numbers by the first digit of the status: few, whatever targets answer."""
    found = {"none": by_status[0]}
    for digit in range(1, 6):
        found[f"{digit}xx"] = sum(by_status[digit * 100 : digit * 100 + 100])
    return found


def merge_totals(many: Iterable[ProxyTotals]) -> ProxyTotals:
    """Return several workers' totals as one proxy's; there is at least one.

    Numbers are added, moments are the earliest, limits and bounds are those of the first.
    """
    first, *others = [one.model_dump() for one in many]
    for other in others:
        first = _merged(first, other)
    return ProxyTotals.model_validate(first)


def _merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(one)
    for name, value in other.items():
        mine = merged.get(name)
        if mine is None:
            merged[name] = value
        elif isinstance(value, Mapping):
            merged[name] = _merged(mine, value)
        elif isinstance(value, datetime):
            merged[name] = min(mine, value)
        elif name == "counts":
            merged[name] = [a + b for a, b in zip(mine, value, strict=True)]
        elif isinstance(value, _SUMMED) and name != "most_descriptors":
            merged[name] = mine + value
    return merged


def merge_routes(many: Iterable[Iterable[RouteActivity]]) -> list[RouteActivity]:
    """Return what several workers' routes carried, in the order of their prefixes."""
    merged: dict[str, RouteActivity] = {}
    for worker in many:
        for one in worker:
            known = merged.get(one.prefix)
            merged[one.prefix] = one if known is None else _together(known, one)
    return [merged[prefix] for prefix in sorted(merged)]


def _together(one: RouteActivity, other: RouteActivity) -> RouteActivity:
    moments = [at for at in (one.last_activity, other.last_activity) if at is not None]
    return one.model_copy(
        update={
            "requests": one.requests + other.requests,
            "sockets": one.sockets + other.sockets,
            "received_bytes": one.received_bytes + other.received_bytes,
            "sent_bytes": one.sent_bytes + other.sent_bytes,
            "last_activity": max(moments, default=None),
        }
    )

"""The route table in force: what the hub last said, and nothing else."""

import gc
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import structlog
from msgspec.structs import replace

from carrel_proxy.core.paths import checked_segments, one_spelling
from carrel_proxy.core.sites import Sites
from carrel_proxy.engine.route_checks import check_routes
from carrel_proxy.engine.routes import LiveRoute, RouteOptions
from carrel_proxy.errors import TableMismatchError
from carrel_shared.wire.routes import (
    DeleteRoute,
    PutRoute,
    Revocation,
    Revoke,
    Route,
    RouteChanges,
    RouteTable,
    TableStatus,
)

log = structlog.get_logger(__name__)


def route_key(route: Route | DeleteRoute) -> str:
    """Return what tells a route from others: its host, if it has one, and its prefix."""
    prefix = route.prefix
    if "%" in prefix:
        prefix = one_spelling(prefix)
    return route.host + prefix if route.host else prefix


class Serves(Protocol):
    """What requests are routed by; both dispatchers are."""

    routes: Sites[LiveRoute]


class Watches(Protocol):
    """What ends access; `Guard` says how."""

    def recheck_all(self) -> None: ...

    def revoke(self, revocation: Revocation) -> None: ...


class Table:
    """Applies tables and changes, all of one or nothing of it.

    A route that stays as it is keeps its connections.

    Attributes:
        keep_whole: Called with the JSON of a whole table that was taken, to save it.
        keep_change: Called with the JSON of changes that were applied.
        on_whole: Called when a whole table was taken.
        on_gap: Called when changes did not fit.
    """

    def __init__(
        self, dispatcher: Serves, guard: Watches, options: RouteOptions, default: Route | None
    ) -> None:
        self.keep_whole: Callable[[bytes], None] = lambda _: None
        self.keep_change: Callable[[bytes], None] = lambda _: None
        self.on_whole: Callable[[], None] = lambda: None
        self.on_gap: Callable[[], None] = lambda: None
        self._guard = guard
        self._options = options
        if default is not None:
            check_routes([default], options.check)
        self._default = LiveRoute(default, options) if default is not None else None
        self._epoch = ""
        self._number = 0
        self._routes: dict[str, LiveRoute] = {}
        self._sites: Sites[LiveRoute] = Sites()
        dispatcher.routes = self._sites
        self._settle_default()

    @property
    def routes(self) -> Mapping[str, LiveRoute]:
        """What is in force, by prefix."""
        return self._routes

    @property
    def status(self) -> TableStatus:
        return TableStatus(epoch=self._epoch, number=self._number, routes=len(self._routes))

    def snapshot(self) -> RouteTable:
        """Return the table with everything in it, secrets too."""
        return RouteTable(
            epoch=self._epoch,
            number=self._number,
            routes=[route.wire for route in self._routes.values()],
        )

    def without_secrets(self) -> RouteTable:
        """Return the table for people to look at."""
        whole = self.snapshot()
        return replace(whole, routes=[_without_secret(one) for one in whole.routes])

    def put(self, table: RouteTable, record: bytes = b"") -> TableStatus:
        """Take a whole table. Revocations may have been missed, so all access is checked again.

        Args:
            record: The JSON that the table was read from, if it was.

        Raises:
            BadTargetError: If a route cannot be used. The table is then as it was.
        """
        self._take(table)
        log.info("table_taken", number=table.number, routes=len(table.routes))
        self._guard.recheck_all()
        self.on_whole()
        self.keep_whole(record or table.json())
        return self.status

    def with_kept(self, table: RouteTable) -> RouteTable:
        """Return a table with the routes of this one that it says to keep and does not have.

        Raises:
            TableMismatchError: This one is of the same lineage and further on: `table` came late.
        """
        if table.epoch == self._epoch and table.number < self._number:
            raise TableMismatchError("this table is older than the one in force")
        if not table.keep:
            return table
        there = {route_key(route) for route in table.routes}
        kept = [
            self._routes[key].wire
            for key in dict.fromkeys(table.keep)
            if key in self._routes and key not in there
        ]
        log.warning("routes_kept", count=len(kept))
        return replace(table, routes=[*table.routes, *kept], keep=[])

    def restore(self, table: RouteTable) -> None:
        """Take up the table that was saved before a restart.

        Raises:
            BadTargetError: If a route cannot be used.
        """
        self._take(table)

    def _take(self, table: RouteTable) -> None:
        known, options = self._routes, self._options
        routes: dict[str, LiveRoute] = {}
        fresh: dict[str, LiveRoute] = {} if known else routes
        for wire in table.routes:
            key = wire.prefix if not wire.host and "%" not in wire.prefix else route_key(wire)
            route = known.get(key)
            if route is None or route.wire != wire:
                route = fresh[key] = LiveRoute(wire, options)
            elif key in fresh:
                del fresh[key]  # said twice, and what comes last counts
            routes[key] = route
        check_routes([route.wire for route in fresh.values()], options.check)
        for key in known.keys() - routes.keys():
            self._remove(key)
        for key in known.keys() & fresh.keys():
            known[key].close()
        self._put(fresh.values())
        self._routes = routes
        self._settle_default()
        self._epoch, self._number = table.epoch, table.number

    def _put(self, routes: Iterable[LiveRoute]) -> None:
        """Have routes found. Of most, only the last segment is their own."""
        siblings: defaultdict[tuple[str, str], list[tuple[bytes, LiveRoute]]] = defaultdict(list)
        for route in routes:
            prefix, host = route.wire.prefix, route.wire.host
            if prefix == "/" or "%" in prefix:
                self._sites.put(host, route.segments, route)
            else:
                parent, _, segment = prefix[:-1].rpartition("/")
                siblings[host, parent].append((segment.encode("ascii"), route))
        for (host, parent), found in siblings.items():
            self._sites.put_below(host, checked_segments(parent + "/"), found)

    def change(self, changes: RouteChanges, record: bytes = b"") -> TableStatus:
        """Apply the changes that follow this table.

        Args:
            record: The JSON that the changes were read from, if they were.

        Raises:
            TableMismatchError: If they follow another one.
            BadTargetError: If a route cannot be used. The table is then as it was.
        """
        try:
            self._apply(changes, self._guard.revoke)
        except TableMismatchError:
            log.info("gap_found", number=self._number, base=changes.base)
            self.on_gap()
            raise
        self.keep_change(record or changes.json())
        return self.status

    def restore_change(self, changes: RouteChanges) -> None:
        """Take up changes that were saved. What they revoked, the saved verdicts lack already.

        Raises:
            TableMismatchError: If they do not follow.
            BadTargetError: If a route cannot be used.
        """
        self._apply(changes, lambda _: None)

    def _apply(self, changes: RouteChanges, revoke: Callable[[Revocation], None]) -> None:
        if (changes.epoch, changes.base) != (self._epoch, self._number) or not self._epoch:
            raise TableMismatchError("these changes do not follow the table in force")
        check_routes(
            [change.route for change in changes.changes if isinstance(change, PutRoute)],
            self._options.check,
        )
        for change in changes.changes:
            if isinstance(change, PutRoute):
                self._place(route_key(change.route), LiveRoute(change.route, self._options))
            elif isinstance(change, DeleteRoute):
                self._remove(route_key(change))
            elif isinstance(change, Revoke):
                revoke(change.revocation)
        self._settle_default()
        self._number = changes.number

    def _place(self, key: str, route: LiveRoute) -> None:
        """Put a route in force, unless it is."""
        before = self._routes.get(key)
        if before is not None:
            if before.wire == route.wire:
                return
            before.close()
        self._routes[key] = route
        self._sites.put(route.wire.host, route.segments, route)

    def _remove(self, key: str) -> None:
        before = self._routes.pop(key, None)
        if before is not None:
            before.close()
            self._sites.remove(before.wire.host, before.segments)

    def _settle_default(self) -> None:
        """Have the default route, unless the hub has said what is in its place.

        Where routes have hosts there is none: none of them may be reached by another name.
        """
        default = self._default
        if default is None or route_key(default.wire) in self._routes:
            return
        if self._sites.tells_hosts_apart:
            self._sites.remove("", default.segments)
        else:
            self._sites.put("", default.segments, default)

    def take_activity(self) -> dict[str, float]:
        """Return when each server was used, if it was since this was last asked.

        Returns:
            Monotonic seconds by server id.
        """
        found: dict[str, float] = {}
        for route in self._routes.values():
            if not route.awake or route.active_at in (None, route.reported_at):
                continue
            route.reported_at = route.active_at
            if route.access is not None:
                found[route.access.server_id] = route.active_at
        return found


def _without_secret(route: Route) -> Route:
    if route.access is None:
        return route
    return replace(route, access=replace(route.access, secret=""))


@contextmanager
def large_heap_grows() -> Iterator[None]:
    """Keep the collector from going through a large table again and again while it is built.

    What is there afterwards stays for long, so later collections need not look at it either.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()

"""The route table in force: what the hub last said, and nothing else."""

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import structlog

from carrel_proxy.core.paths import one_spelling
from carrel_proxy.core.sites import Sites
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
    return f"{route.host}{prefix if '%' not in prefix else one_spelling(prefix)}"


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
        self._dispatcher = dispatcher
        self._guard = guard
        self._options = options
        self._default = LiveRoute(default, options) if default is not None else None
        self._epoch = ""
        self._number = 0
        self._routes: dict[str, LiveRoute] = {}
        self._dispatcher.routes = self._build({})

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
        return RouteTable(
            epoch=self._epoch,
            number=self._number,
            routes=[
                route.wire
                if route.access is None
                else route.wire.model_copy(
                    update={"access": route.access.model_copy(update={"secret": ""})}
                )
                for route in self._routes.values()
            ],
        )

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
        self.keep_whole(record or table.model_dump_json().encode())
        return self.status

    def restore(self, table: RouteTable) -> None:
        """Take up the table that was saved before a restart.

        Raises:
            BadTargetError: If a route cannot be used.
        """
        self._take(table)

    def _take(self, table: RouteTable) -> None:
        routes: dict[str, LiveRoute] = {}
        for wire in table.routes:
            key = route_key(wire)
            known = self._routes.get(key)
            keep = known is not None and known.wire == wire
            routes[key] = known if known and keep else LiveRoute(wire, self._options)
        sites = self._build(routes)
        before, self._routes = self._routes, routes
        self._dispatcher.routes = sites
        self._epoch, self._number = table.epoch, table.number
        for key, route in before.items():
            if routes.get(key) is not route:
                route.close()

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
        self.keep_change(record or changes.model_dump_json().encode())
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
        made = {
            id(change): LiveRoute(change.route, self._options)
            for change in changes.changes
            if isinstance(change, PutRoute)
        }
        for change in changes.changes:
            if isinstance(change, PutRoute):
                self._put_route(made[id(change)])
            elif isinstance(change, DeleteRoute):
                self._delete_route(change)
            elif isinstance(change, Revoke):
                revoke(change.revocation)
        self._number = changes.number

    def _put_route(self, route: LiveRoute) -> None:
        before = self._routes.get(route_key(route.wire))
        if before is not None:
            if before.wire == route.wire:
                return
            before.close()
        self._routes[route_key(route.wire)] = route
        self._dispatcher.routes.put(route.wire.host, route.segments, route)

    def _delete_route(self, change: DeleteRoute) -> None:
        before = self._routes.pop(route_key(change), None)
        if before is None:
            return
        before.close()
        self._dispatcher.routes.remove(change.host, before.segments)
        if self._default is not None and route_key(change) == self._default.prefix:
            self._dispatcher.routes.put("", self._default.segments, self._default)

    def _build(self, routes: dict[str, LiveRoute]) -> Sites[LiveRoute]:
        sites: Sites[LiveRoute] = Sites()
        # Where routes have hosts, none of them may be reached by another name.
        if self._default is not None and not any(route.wire.host for route in routes.values()):
            sites.put("", self._default.segments, self._default)
        for route in routes.values():
            sites.put(route.wire.host, route.segments, route)
        return sites

    def take_activity(self) -> dict[str, float]:
        """Return when each server was used, if it was since this was last asked.

        Returns:
            Monotonic seconds by server id.
        """
        found: dict[str, float] = {}
        for route in self._routes.values():
            if route.active_at is None or route.active_at == route.reported_at:
                continue
            route.reported_at = route.active_at
            if route.access is not None:
                found[route.access.server_id] = route.active_at
        return found


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

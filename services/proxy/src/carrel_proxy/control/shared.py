"""What the workers of one proxy share: the table, who may pass, and what each has counted.

The worker that leads is told by the hub; the others are told by it, and note to it what the hub
said about tokens, so that one file holds everybody's sign-ins.
"""

from datetime import datetime

from msgspec import Raw
from pydantic import BaseModel, TypeAdapter

from carrel_proxy.access.verdicts import Key, SavedVerdict, Verdicts
from carrel_proxy.control.counted import Counted, merge_routes, merge_totals
from carrel_proxy.control.table import Table, Watches, large_heap_grows
from carrel_proxy.engine.edge import Edge
from carrel_proxy.process.crew import WHOLE_SECONDS, Crew
from carrel_shared.wire.counters import ProxyTotals, RouteActivity
from carrel_shared.wire.draining import DrainStatus
from carrel_shared.wire.routes import (
    Revoke,
    RouteChanges,
    RouteMessage,
    RouteTable,
    TableStatus,
)

DRAINING = "draining"
"""What the parent keeps under this name is there while the proxy is out of service."""

_ACTIVITY = TypeAdapter(dict[str, float])
_VERDICTS = TypeAdapter(list[SavedVerdict])
_OPEN = ("connections_open", "requests_open", "sockets_open", "upstream_open", "verdicts_kept")
_GONE_PROCESS = ("resident_bytes", "virtual_bytes", "open_descriptors")


class _Snapshot(RouteMessage, frozen=True, kw_only=True):
    """What is in force. `verdicts` is the JSON of models."""

    table: RouteTable
    verdicts: Raw
    draining: bool


class _Noted(BaseModel):
    """A verdict, and the table that was in force where it was kept."""

    status: TableStatus
    verdict: SavedVerdict


class _Counts(BaseModel):
    totals: ProxyTotals
    routes: list[RouteActivity]


class _Farewell(BaseModel):
    counts: _Counts
    activity: dict[str, float]


class Shared:
    """One worker's part in it. Alone, it is all of it."""

    def __init__(
        self,
        crew: Crew,
        edge: Edge,
        table: Table,
        access: Watches,
        counted: Counted,
        verdicts: Verdicts | None = None,
    ) -> None:
        self._crew = crew
        self._table = table
        self._access = access
        self._verdicts = verdicts
        self._counted = counted
        self._edge = edge
        self._revoked_at = 0
        self._gone: list[ProxyTotals] = []
        self._gone_routes: list[RouteActivity] = []
        self._gone_activity: dict[str, float] = {}
        if verdicts is not None:
            verdicts.on_kept = self._note_verdict
        crew.snapshot = self.snapshot
        crew.take = self.take
        crew.on("table", self._take_table)
        crew.on("changes", self._take_changes)
        crew.on("verdict", self._take_verdict)
        crew.on("drain", self._take_drain)
        crew.on("left", lambda *_: self._left().model_dump_json().encode())
        crew.on("connections", lambda *_: b"%d" % edge.connections)
        crew.on("activity", lambda *_: _ACTIVITY.dump_json(table.take_activity()))
        crew.on("counts", lambda *_: self._counts().model_dump_json().encode())
        crew.on("farewell", self._take_farewell)

    # --- what is in force ---

    def lead(self) -> None:
        """Lead from now on: what was noted under an older table may have been revoked since."""
        self._revoked_at = self._table.status.number

    async def tell_table(self, body: bytes) -> None:
        """Have the others take the whole table that was put here; back when they have.

        Raises:
            CrewError: If one goes on without.
        """
        self._revoked_at = self._table.status.number
        await self._crew.tell("table", body, seconds=WHOLE_SECONDS)

    async def tell_changes(self, changes: RouteChanges, body: bytes) -> None:
        """Have the others apply what was applied here; back when they have.

        Raises:
            CrewError: If one goes on without.
        """
        if any(isinstance(change, Revoke) for change in changes.changes):
            self._revoked_at = changes.number
        await self._crew.tell("changes", body)

    def snapshot(self) -> bytes:
        """Return what is in force, for a worker that joins."""
        verdicts = self._verdicts.snapshot() if self._verdicts is not None else []
        whole = _Snapshot(
            table=self._table.snapshot(),
            verdicts=Raw(_VERDICTS.dump_json(verdicts)),
            draining=self._edge.draining,
        )
        return whole.json()

    def take(self, snapshot: bytes) -> None:
        """Take what is in force from the leader.

        A leader that died may have been told of a revocation that it could tell nobody. If its
        successor knows more than is known here, verdicts count again once the hub says them again.
        """
        whole = _Snapshot.read(snapshot)
        self._edge.send_away(draining=whole.draining)
        known = self._table.status
        if (known.epoch, known.number) != (whole.table.epoch, whole.table.number):
            with large_heap_grows():
                self._table.restore(whole.table)
            if known.epoch and (
                known.epoch != whole.table.epoch or known.number < whole.table.number
            ):
                self._access.recheck_all()
        if self._verdicts is not None:
            self._verdicts.restore(_VERDICTS.validate_json(bytes(whole.verdicts)))

    def _take_table(self, _worker: int, body: bytes) -> bytes:
        with large_heap_grows():
            self._table.put(RouteTable.read(body), body)
        return b""

    def _take_changes(self, _worker: int, body: bytes) -> bytes:
        self._table.change(RouteChanges.read(body), body)
        return b""

    # --- out of service ---

    async def drain(self, *, draining: bool) -> DrainStatus:
        """Have all workers send people away, or take them in again.

        Who joins later learns it from the leader; a leader that follows no other, from the parent.

        Raises:
            CrewError: If one goes on as before, or the parent does not keep it.
        """
        self._edge.send_away(draining=draining)
        await self._crew.tell("drain", b"1" if draining else b"")
        await self._crew.keep(DRAINING, "1" if draining else None)
        return await self.left()

    async def left(self) -> DrainStatus:
        """Return what is still open."""
        own = self._left()
        others = [DrainStatus.model_validate_json(one) for one in await self._crew.ask("left")]
        return DrainStatus(
            draining=own.draining,
            requests=own.requests + sum(one.requests for one in others),
            sockets=own.sockets + sum(one.sockets for one in others),
        )

    def _left(self) -> DrainStatus:
        edge = self._edge
        return DrainStatus(
            draining=edge.draining, requests=len(edge.exchanges), sockets=len(edge.tunnels)
        )

    def _take_drain(self, _worker: int, body: bytes) -> bytes:
        self._edge.send_away(draining=bool(body))
        return b""

    # --- who may pass ---

    def _note_verdict(self, key: Key) -> None:
        saved = self._verdicts.saved(key) if self._verdicts is not None else None
        if saved is None or self._crew.leads:
            return
        noted = _Noted(status=self._table.status, verdict=saved)
        self._crew.note("verdict", noted.model_dump_json().encode())

    def _take_verdict(self, _worker: int, body: bytes) -> bytes:
        noted = _Noted.model_validate_json(body)
        same_epoch = noted.status.epoch == self._table.status.epoch
        if self._verdicts is not None and same_epoch and noted.status.number >= self._revoked_at:
            self._verdicts.restore([noted.verdict])
            self._verdicts.on_change()
        return b""

    # --- what was counted ---

    async def connections(self) -> int:
        """Return how many connections clients have open."""
        return self._edge.connections + sum(map(int, await self._crew.ask("connections")))

    async def totals(self) -> ProxyTotals:
        """Return all workers' totals as one, with those of workers that have ended."""
        others = await self._other_counts()
        return merge_totals([self._counted.totals(), *(o.totals for o in others), *self._gone])

    async def routes(
        self, after: str, *, active_since: datetime | None, limit: int
    ) -> list[RouteActivity]:
        """Return what the routes with prefixes above `after` have carried, in their order."""
        prefixes = sorted(prefix for prefix in self._table.routes if prefix > after)
        own = (self._table.routes[prefix] for prefix in prefixes)
        others = await self._other_counts()
        if not others and not self._gone_routes:
            return self._counted.routes(own, active_since=active_since, limit=limit)
        shown = self._counted.routes(own, limit=len(prefixes))
        known = self._table.routes
        carried = [one for other in others for one in other.routes] + self._gone_routes
        fitting = [one for one in carried if one.prefix > after and one.prefix in known]
        merged = merge_routes([shown, *([one] for one in fitting)])
        return [one for one in merged if _is_active(one, active_since)][:limit]

    async def take_activity(self) -> dict[str, float]:
        """Return when each server was used, if it was since this was last asked, at any worker.

        Returns:
            Monotonic seconds, which all workers share, by server id.
        """
        found = self._table.take_activity()
        answers = [_ACTIVITY.validate_json(each) for each in await self._crew.ask("activity")]
        gone, self._gone_activity = self._gone_activity, {}
        for each in (*answers, gone):
            _keep_latest(found, each)
        return found

    def say_farewell(self) -> None:
        """Leave to the leader what was counted here."""
        farewell = _Farewell(counts=self._counts(), activity=self._table.take_activity())
        self._crew.note("farewell", farewell.model_dump_json().encode())

    def _counts(self) -> _Counts:
        routes = (
            route
            for route in self._table.routes.values()
            if route.awake and route.active_at is not None
        )
        shown = self._counted.routes(routes, limit=len(self._table.routes))
        return _Counts(totals=self._counted.totals(), routes=shown)

    async def _other_counts(self) -> list[_Counts]:
        return [_Counts.model_validate_json(each) for each in await self._crew.ask("counts")]

    def _take_farewell(self, _worker: int, body: bytes) -> bytes:
        farewell = _Farewell.model_validate_json(body)
        _keep_latest(self._gone_activity, farewell.activity)
        self._gone = [merge_totals([*self._gone, as_ended(farewell.counts.totals)])]
        routes = [one.model_copy(update={"sockets": 0}) for one in farewell.counts.routes]
        known = self._table.routes
        merged = merge_routes([self._gone_routes, routes])
        self._gone_routes = [one for one in merged if one.prefix in known]
        return b""


def as_ended(totals: ProxyTotals) -> ProxyTotals:
    """Return what a worker that has ended adds to those that go on."""
    process = totals.process.model_copy(update=dict.fromkeys(_GONE_PROCESS, 0))
    return totals.model_copy(update={**dict.fromkeys(_OPEN, 0), "process": process})


def _keep_latest(found: dict[str, float], more: dict[str, float]) -> None:
    for server_id, at in more.items():
        found[server_id] = max(at, found.get(server_id, at))


def _is_active(one: RouteActivity, since: datetime | None) -> bool:
    if since is None or one.sockets:
        return True
    return one.last_activity is not None and one.last_activity >= since

"""What the workers of one proxy share: the routes that were posted, and what each has counted.

The worker that leads is posted to, and has the others follow before it answers. When it dies, the
routes are still there: its parent keeps them, or a file does.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from carrel_proxy.chp.metrics import Metrics, merge
from carrel_proxy.chp.storage import RouteFile
from carrel_proxy.chp.table import ChpTable
from carrel_proxy.control.counted import Counted, merge_totals
from carrel_proxy.control.shared import as_ended
from carrel_proxy.process.crew import Crew
from carrel_shared.wire.counters import ProxyTotals


class _Counts(BaseModel):
    totals: ProxyTotals
    metrics: dict[str, Any]


class ChpShared:
    """One worker's part in it. Alone, it is all of it.

    Args:
        file: Keeps the routes when the whole proxy ends; None where they end with it.
    """

    def __init__(
        self,
        crew: Crew,
        table: ChpTable,
        metrics: Metrics,
        counted: Counted,
        file: RouteFile | None = None,
    ) -> None:
        self._crew = crew
        self._table = table
        self._metrics = metrics
        self._counted = counted
        self._file = file
        self._gone: list[_Counts] = []
        crew.on("put", self._take_put)
        crew.on("delete", self._take_delete)
        crew.on("activity", lambda *_: json.dumps(table.used()).encode())
        crew.on("counts", lambda *_: self._counts().model_dump_json().encode())
        crew.on("farewell", self._take_farewell)

    # --- routes ---

    def restore(self, kept: Mapping[str, str]) -> None:
        """Take up the routes of a leader that died; without any, those of the file."""
        routes = {key: json.loads(text) for key, text in kept.items()}
        if not routes and self._file is not None:
            routes = self._file.load()
        for key, data in routes.items():
            self._table.put(key, data)

    def snapshot(self) -> bytes:
        """Return the routes, for a worker that joins."""
        used = self._table.used()
        return json.dumps({k: [data, used[k]] for k, data in self._table.posted().items()}).encode()

    def take(self, snapshot: bytes) -> None:
        """Take the routes that the leader has; those that are the same here stay as they are."""
        whole = json.loads(snapshot)
        known = self._table.posted()
        for key in known.keys() - whole.keys():
            self._table.delete(key)
        for key, (data, used) in whole.items():
            if known.get(key) == data:
                self._table.note_used(key, used)
            else:
                self._table.put(key, data, used)

    async def put(self, key: str, data: dict[str, Any]) -> None:
        """Have a route that was put here in force everywhere; back when it is.

        Raises:
            CrewError: If a worker goes on without it, or nobody keeps it.
        """
        body = {"key": key, "data": data, "used": self._table.used()[key]}
        await self._crew.tell("put", json.dumps(body).encode())
        await self._keep(key, data)

    async def delete(self, key: str) -> None:
        """Likewise for one that was deleted here.

        Raises:
            CrewError: If a worker goes on with it, or somebody keeps it.
        """
        await self._crew.tell("delete", key.encode())
        await self._keep(key, None)

    async def _keep(self, key: str, data: dict[str, Any] | None) -> None:
        if self._file is not None:
            await self._file.write(key, data, self._table.posted)
        await self._crew.keep(key, None if data is None else json.dumps(data))

    def _take_put(self, _worker: int, body: bytes) -> bytes:
        told = json.loads(body)
        self._table.put(told["key"], told["data"], told["used"])
        return b""

    def _take_delete(self, _worker: int, body: bytes) -> bytes:
        self._table.delete(body.decode())
        return b""

    # --- what was used and counted ---

    async def gather_activity(self) -> None:
        """Bring the times of last use up to date with the other workers."""
        for answer in await self._crew.ask("activity"):
            for key, used in json.loads(answer).items():
                self._table.note_used(key, used)

    async def counts(self) -> tuple[ProxyTotals, dict[str, Any]]:
        """Return all workers' numbers as one's, with those of workers that have ended."""
        others = [_Counts.model_validate_json(each) for each in await self._crew.ask("counts")]
        return _together([self._counts(), *others, *self._gone])

    def say_farewell(self) -> None:
        """Leave to the leader what was counted here."""
        farewell = {"counts": self._counts().model_dump_json(), "used": self._table.used()}
        self._crew.note("farewell", json.dumps(farewell).encode())

    def _counts(self) -> _Counts:
        return _Counts(totals=self._counted.totals(), metrics=self._metrics.snapshot())

    def _take_farewell(self, _worker: int, body: bytes) -> bytes:
        farewell = json.loads(body)
        for key, used in farewell["used"].items():
            self._table.note_used(key, used)
        counts = _Counts.model_validate_json(farewell["counts"])
        ended = _Counts(totals=as_ended(counts.totals), metrics=counts.metrics)
        totals, metrics = _together([*self._gone, ended])
        self._gone = [_Counts(totals=totals, metrics=metrics)]
        return b""


def _together(many: Sequence[_Counts]) -> tuple[ProxyTotals, dict[str, Any]]:
    return merge_totals(each.totals for each in many), merge(each.metrics for each in many)

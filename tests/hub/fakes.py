"""An agent and a proxy that speak their real protocols and do what a test tells them."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from carrel_shared.clock import SystemClock
from carrel_shared.service_auth import ServiceGate
from carrel_shared.wire.agents import AgentReport, Capacity
from carrel_shared.wire.limits import Limits, LimitsChange, ServerUsage
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
from carrel_shared.wire.servers import (
    ExitReport,
    LogTail,
    ServerReport,
    ServerSpec,
    ServerState,
    StopRequest,
)

ALIVE = (ServerState.STARTING, ServerState.READY, ServerState.STOPPING)


class Switch(httpx.AsyncBaseTransport):
    """A connection that can be cut: while `down`, nobody answers."""

    def __init__(self, app: Any) -> None:
        self._inner = httpx.ASGITransport(app=app)
        self.down = False
        self.lose_replies = False
        """What is sent arrives, and no answer comes back."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.down:
            raise httpx.ConnectError("nobody there")
        reply = await self._inner.handle_async_request(request)
        if self.lose_replies:
            raise httpx.ReadTimeout("the answer was lost")
        return reply


@dataclass
class FakeAgent:
    """An agent whose servers start at once, or when told to."""

    name: str = "local"
    key: str = "k" * 32
    accounts: str = "any"
    instant: bool = True
    """A server is ready in the answer to its start."""
    instance: str = "instance-1"
    refusal: tuple[int, str, str] | None = None
    servers: dict[str, ServerReport] = field(default_factory=dict)
    specs: list[ServerSpec] = field(default_factory=list)
    launches: Counter[tuple[str, int]] = field(default_factory=Counter)
    stops: list[tuple[str, StopRequest]] = field(default_factory=list)
    request_ids: list[str] = field(default_factory=list)
    stop_at_once: bool = True
    limits: Limits = field(default_factory=Limits)
    printed: list[str] = field(default_factory=lambda: ["one", "two", "three"])
    sequence: int = 0

    def __post_init__(self) -> None:
        app = FastAPI()
        app.put("/agent/v1/servers/{server_id}")(self._start)
        app.post("/agent/v1/servers/{server_id}/stop")(self._stop)
        app.get("/agent/v1/servers/{server_id}")(self._get)
        app.get("/agent/v1/servers/{server_id}/usage")(self._usage)
        app.put("/agent/v1/servers/{server_id}/limits")(self._limits)
        app.get("/agent/v1/servers/{server_id}/log")(self._log)
        app.get("/agent/v1/servers/{server_id}/log/stream")(self._log_stream)
        self.app = ServiceGate(app, keys={"hub": self.key}, service="agent")
        self.switch = Switch(self.app)

    async def _start(self, server_id: str, spec: ServerSpec, request: Request) -> Response:
        self.request_ids.append(request.headers["x-request-id"])
        if self.refusal is not None:
            return _error(*self.refusal)
        known = self.servers.get(server_id)
        if known is not None and known.generation > spec.generation:
            return _error(409, "generation_stale", "a later start is known")
        if known is not None and known.generation < spec.generation and known.state in ALIVE:
            return _error(409, "server_running", "an earlier start still runs")
        if known is None or known.generation < spec.generation:
            self.specs.append(spec)
            self.launches[server_id, spec.generation] += 1
            state = ServerState.READY if self.instant else ServerState.STARTING
            self.put(server_id, spec.generation, state)
        return _json(self.servers[server_id], 202)

    async def _stop(self, server_id: str, body: StopRequest) -> Response:
        self.stops.append((server_id, body))
        known = self.servers.get(server_id)
        if known is None:
            return _error(404, "not_found", "no such server")
        if body.generation < known.generation:
            return _error(409, "generation_stale", "a later start is known")
        if known.state not in ALIVE:
            return _json(known, 200)
        if self.stop_at_once:
            self.end(server_id, cause="stopped", code=0)
        else:
            self.put(server_id, known.generation, ServerState.STOPPING)
        return _json(self.servers[server_id], 202)

    async def _get(self, server_id: str) -> Response:
        known = self.servers.get(server_id)
        return _error(404, "not_found", "no such server") if known is None else _json(known, 200)

    async def _usage(self, server_id: str) -> Response:
        if server_id not in self.servers:
            return _error(404, "unknown_server", "no such server")
        found = ServerUsage(memory_bytes=100, processes=3, limits=self.limits)
        return Response(found.model_dump_json(), media_type="application/json")

    async def _limits(self, server_id: str, change: LimitsChange) -> Response:
        if self.refusal is not None:
            return _error(*self.refusal)
        self.limits = change.limits
        return await self._usage(server_id)

    async def _log(self, lines: int) -> LogTail:
        return LogTail(lines=self.printed[-lines:])

    async def _log_stream(self, lines: int) -> Response:
        return Response("".join(f"{line}\n" for line in self.printed[-lines:]))

    def put(
        self, server_id: str, generation: int, state: ServerState, *, progress: str = ""
    ) -> None:
        """Have a server in that state."""
        ready = state == ServerState.READY
        self.servers[server_id] = ServerReport(
            server_id=server_id,
            generation=generation,
            state=state,
            runner="fork",
            target=f"unix:/run/s/{server_id}/http.sock" if ready else None,
            peer_uid=1000 if ready else None,
            progress=progress,
        )

    def end(
        self,
        server_id: str,
        *,
        cause: str,
        code: int | None = None,
        signal: int | None = None,
        summary: str = "It ended.",
    ) -> None:
        """Have a server end."""
        state = ServerState.STOPPED if cause == "stopped" else ServerState.FAILED
        self.servers[server_id] = self.servers[server_id].model_copy(
            update={
                "state": state,
                "target": None,
                "exit": ExitReport(
                    code=code,
                    signal=signal,
                    cause=cause,
                    summary=summary,
                    log_tail=["last words"],
                    at=SystemClock().now(),
                ),
            }
        )

    def report(self) -> AgentReport:
        """Return the next report, as the agent would send it now."""
        self.sequence += 1
        return AgentReport(
            instance=self.instance,
            boot_id="boot",
            sequence=self.sequence,
            version="0.1.0",
            accounts=self.accounts,
            capacity=Capacity(cores=2, memory_total=8, memory_available=4, load_1m=0.1),
            servers=list(self.servers.values()),
        )


@dataclass
class FakeProxy:
    """A proxy's control API with a table and nothing behind it."""

    name: str = "edge"
    key: str = "p" * 32
    epoch: str = ""
    number: int = 0
    routes: dict[str, Route] = field(default_factory=dict)
    revoked: list[Revocation] = field(default_factory=list)
    tables: int = 0
    changes: int = 0
    greetings: int = 0

    def __post_init__(self) -> None:
        app = FastAPI()
        app.put("/control/v1/table")(self._table)
        app.post("/control/v1/changes")(self._changes)
        app.get("/control/v1/table")(self._get_table)
        app.get("/control/v1/status")(self._status)
        self.app = ServiceGate(app, keys={"hub": self.key}, service="proxy")
        self.switch = Switch(self.app)

    async def _table(self, request: Request) -> Response:
        table = RouteTable.read(await request.body())
        if table.epoch == self.epoch and table.number < self.number:
            return _json(self.status(), 409)
        self.tables += 1
        self.epoch, self.number = table.epoch, table.number
        kept = {prefix: self.routes[prefix] for prefix in table.keep if prefix in self.routes}
        self.routes = kept | {route.prefix: route for route in table.routes}
        return _json(self.status(), 200)

    async def _changes(self, request: Request) -> Response:
        body = RouteChanges.read(await request.body())
        if (body.epoch, body.base) != (self.epoch, self.number):
            return _json(self.status(), 409)
        self.changes += 1
        for change in body.changes:
            match change:
                case PutRoute(route=route):
                    self.routes[route.prefix] = route
                case DeleteRoute(prefix=prefix):
                    self.routes.pop(prefix, None)
                case Revoke(revocation=revocation):
                    self.revoked.append(revocation)
        self.number = body.number
        return _json(self.status(), 200)

    async def _get_table(self) -> Response:
        routes = list(self.routes.values())
        table = RouteTable(epoch=self.epoch, number=self.number, routes=routes)
        return Response(table.json(), media_type="application/json")

    async def _status(self) -> Response:
        self.greetings += 1
        return _json(self.status(), 200)

    def status(self) -> TableStatus:
        return TableStatus(epoch=self.epoch, number=self.number, routes=len(self.routes))


def _json(model: ServerReport | TableStatus, status: int) -> Response:
    return JSONResponse(model.model_dump(mode="json"), status_code=status)


def _error(status: int, code: str, message: str) -> Response:
    body = {"status": status, "code": code, "message": message}
    return JSONResponse(body, status_code=status)

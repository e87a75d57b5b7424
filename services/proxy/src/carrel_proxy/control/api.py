"""The control API: how the hub tells this proxy what is in force."""

from typing import Annotated, TypeVar

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import AwareDatetime, BaseModel, ValidationError
from starlette.exceptions import HTTPException

from carrel_proxy import __version__
from carrel_proxy.control.saved import SavedFiles
from carrel_proxy.control.shared import Shared
from carrel_proxy.control.table import Table, large_heap_grows
from carrel_proxy.engine.edge import Edge
from carrel_proxy.errors import BadTargetError, TableMismatchError
from carrel_proxy.process.crew import CrewError
from carrel_shared.service_auth import ASGIApp, ServiceGate
from carrel_shared.wire.counters import ProxyCounters
from carrel_shared.wire.draining import DrainStatus
from carrel_shared.wire.errors import ErrorBody
from carrel_shared.wire.routes import RouteChanges, RouteTable, TableStatus

MAX_BODY_BYTES = 64 << 20
"""More than a hundred thousand routes."""

MOST_ROUTES = 10_000
"""Routes in one answer with counters."""

HEALTH_PATH = "/control/v1/health"

M = TypeVar("M", bound=BaseModel)


def create_control_app(
    table: Table,
    key: str,
    edge: Edge,
    saved: SavedFiles,
    shared: Shared,
    *,
    caller: str = "hub",
) -> ASGIApp:
    """Return the control API behind its gate.

    Args:
        key: What the caller must show.
        saved: Written before an answer, which is an acknowledgement: what the hub was told is in
            force is so after a crash too, a revocation most of all.
        caller: Who pushes: the hub to edges, the agent of its host to a relay.
    """
    app = FastAPI(title="Carrel proxy control", version=__version__, docs_url=None, redoc_url=None)

    @app.put("/control/v1/table", response_model=TableStatus)
    async def put_table(request: Request) -> Response:
        body = await _body(request)
        with large_heap_grows():
            status = table.put(_parse(RouteTable, body), body)
        await shared.tell_table(body)
        await saved.flush()
        return _json(status)

    @app.post("/control/v1/changes", response_model=TableStatus)
    async def post_changes(request: Request) -> Response:
        body = await _body(request)
        changes = _parse(RouteChanges, body)
        try:
            status = table.change(changes, body)
        except TableMismatchError:
            return _json(table.status, 409)
        await shared.tell_changes(changes, body)
        await saved.flush()
        return _json(status)

    @app.get("/control/v1/table", response_model=RouteTable)
    async def get_table() -> Response:
        return _json(table.without_secrets())

    @app.get("/control/v1/status", response_model=TableStatus)
    async def get_status() -> Response:
        return _json(table.status)

    @app.get("/control/v1/counters", response_model=ProxyCounters)
    async def get_counters(
        active_since: AwareDatetime | None = None,
        after: str = "",
        limit: Annotated[int, Query(ge=0, le=MOST_ROUTES)] = 1000,
    ) -> Response:
        shown = await shared.routes(after, active_since=active_since, limit=limit + 1)
        page = shown[:limit]
        return _json(
            ProxyCounters(
                totals=await shared.totals(),
                table=table.status,
                routes=page,
                next=page[-1].prefix if page and len(shown) > limit else None,
            )
        )

    @app.post("/control/v1/drain", response_model=DrainStatus)
    async def drain() -> Response:
        return _json(await shared.drain(draining=True))

    @app.delete("/control/v1/drain", response_model=DrainStatus)
    async def undo_drain() -> Response:
        return _json(await shared.drain(draining=False))

    @app.get("/control/v1/drain", response_model=DrainStatus)
    async def get_drain() -> Response:
        return _json(await shared.left())

    @app.get(HEALTH_PATH)
    async def get_health() -> dict[str, str | int]:
        status = "draining" if edge.draining else "ok"
        return {"status": status, "connections": await shared.connections(), "saved": saved.ok}

    @app.exception_handler(CrewError)
    async def not_all_told(_request: Request, error: Exception) -> Response:
        return _error(503, "not_in_force", str(error))

    @app.exception_handler(BadTargetError)
    async def bad_target(_request: Request, error: Exception) -> Response:
        return _error(422, "bad_route", str(error))

    @app.exception_handler(RequestValidationError)
    async def bad_query(_request: Request, error: Exception) -> Response:
        first = error.errors()[0] if isinstance(error, RequestValidationError) else {}
        place = ".".join(str(part) for part in first.get("loc", ()))
        return _error(422, "refused", f"{place}: {first.get('msg', 'cannot be read')}")

    @app.exception_handler(HTTPException)
    async def refused(_request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        detail = str(error.detail) if isinstance(error, HTTPException) else "failed"
        return _error(status, "refused", detail)

    return ServiceGate(
        app, keys={caller: key}, service="carrel-proxy", open_paths=frozenset({HEALTH_PATH})
    )


async def _body(request: Request) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise HTTPException(413, f"a body has at most {MAX_BODY_BYTES} bytes")
        parts.append(part)
    return b"".join(parts)


def _parse(model: type[M], body: bytes) -> M:
    """Read a body in one step, which for a table of many routes matters."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise HTTPException(422, f"{place or 'body'}: {first['msg']}") from None


def _json(model: BaseModel, status: int = 200) -> Response:
    return Response(model.model_dump_json(), status, media_type="application/json")


def _error(status: int, code: str, message: str) -> Response:
    return _json(ErrorBody(status=status, code=code, message=message), status)

"""The control API: how the hub tells this proxy what is in force."""

from typing import TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route as Endpoint

from carrel_proxy.control.saved import SavedFiles
from carrel_proxy.control.shared import Shared
from carrel_proxy.control.table import Table, large_heap_grows
from carrel_proxy.engine.edge import Edge
from carrel_proxy.errors import BadTargetError, TableMismatchError
from carrel_proxy.process.crew import CrewError
from carrel_shared.service_auth import ASGIApp, ServiceGate
from carrel_shared.wire.counters import ProxyCounters
from carrel_shared.wire.errors import ErrorBody
from carrel_shared.wire.routes import RouteChanges, RouteTable, UnreadableError

MAX_BODY_BYTES = 64 << 20
"""More than a hundred thousand routes."""

MOST_ROUTES = 10_000
"""Routes in one answer with counters."""

HEALTH_PATH = "/control/v1/health"

M = TypeVar("M", bound=BaseModel)


class CountersQuery(BaseModel):
    """Which routes `GET /control/v1/counters` shows.

    Attributes:
        active_since: Only those used since then.
        after: Those that follow this prefix.
        limit: How many at most.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    active_since: AwareDatetime | None = None
    after: str = ""
    limit: int = Field(default=1000, ge=0, le=MOST_ROUTES)


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

    async def put_table(request: Request) -> Response:
        body = await _body(request)
        with large_heap_grows():
            wanted = _read_table(body)
            whole = table.with_kept(wanted)
            body = body if whole is wanted else whole.json()
            status = table.put(whole, body)
        await shared.tell_table(body)
        await saved.flush()
        return _json(status)

    async def post_changes(request: Request) -> Response:
        body = await _body(request)
        changes = RouteChanges.read(body)
        status = table.change(changes, body)
        await shared.tell_changes(changes, body)
        await saved.flush()
        return _json(status)

    async def get_table(_request: Request) -> Response:
        return Response(table.without_secrets().json(), media_type="application/json")

    async def get_status(_request: Request) -> Response:
        return _json(table.status)

    async def get_counters(request: Request) -> Response:
        query = _query(CountersQuery, request)
        shown = await shared.routes(
            query.after, active_since=query.active_since, limit=query.limit + 1
        )
        page = shown[: query.limit]
        return _json(
            ProxyCounters(
                totals=await shared.totals(),
                table=table.status,
                routes=page,
                next=page[-1].prefix if page and len(shown) > query.limit else None,
            )
        )

    async def drain(_request: Request) -> Response:
        return _json(await shared.drain(draining=True))

    async def undo_drain(_request: Request) -> Response:
        return _json(await shared.drain(draining=False))

    async def get_drain(_request: Request) -> Response:
        return _json(await shared.left())

    async def get_health(_request: Request) -> Response:
        status = "draining" if edge.draining else "ok"
        return JSONResponse(
            {"status": status, "connections": await shared.connections(), "saved": saved.ok}
        )

    async def does_not_fit(_request: Request, _error: Exception) -> Response:
        return _json(table.status, 409)

    async def not_all_told(_request: Request, error: Exception) -> Response:
        return _error(503, "not_in_force", str(error))

    async def unreadable(_request: Request, error: Exception) -> Response:
        return _error(422, "refused", f"body: {error}")

    async def bad_target(_request: Request, error: Exception) -> Response:
        return _error(422, "bad_route", str(error))

    async def refused(_request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        detail = str(error.detail) if isinstance(error, HTTPException) else "failed"
        return _error(status, "refused", detail)

    app = Starlette(
        routes=[
            Endpoint("/control/v1/table", put_table, methods=["PUT"]),
            Endpoint("/control/v1/table", get_table),
            Endpoint("/control/v1/changes", post_changes, methods=["POST"]),
            Endpoint("/control/v1/status", get_status),
            Endpoint("/control/v1/counters", get_counters),
            Endpoint("/control/v1/drain", drain, methods=["POST"]),
            Endpoint("/control/v1/drain", undo_drain, methods=["DELETE"]),
            Endpoint("/control/v1/drain", get_drain),
            Endpoint(HEALTH_PATH, get_health),
        ],
        exception_handlers={
            TableMismatchError: does_not_fit,
            CrewError: not_all_told,
            UnreadableError: unreadable,
            BadTargetError: bad_target,
            HTTPException: refused,
        },
    )
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


def _read_table(body: bytes) -> RouteTable:
    table = RouteTable.read(body)
    if not table.epoch:
        raise UnreadableError("a table is of an epoch")
    return table


def _query(model: type[M], request: Request) -> M:
    try:
        return model.model_validate(dict(request.query_params))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(step) for step in first["loc"])
        raise HTTPException(422, f"{place or 'query'}: {first['msg']}") from None


def _json(model: BaseModel, status: int = 200) -> Response:
    return Response(model.model_dump_json(), status, media_type="application/json")


def _error(status: int, code: str, message: str) -> Response:
    return _json(ErrorBody(status=status, code=code, message=message), status)

"""`{hub}api/users/NAME/server/...`: a running server's limits, use and output, from its host."""

from typing import Annotated

from fastapi import Depends, Query, Request
from fastapi.responses import JSONResponse, Response

from carrel_hub.auth.subjects import Subject, current_subject
from carrel_hub.context import Hub
from carrel_hub.db.models import Server
from carrel_hub.deps import HubDep
from carrel_hub.errors import (
    AgentRefusedError,
    InvalidRequestError,
    NotFoundError,
    TooManyRequestsError,
)
from carrel_hub.late_routes import LateRouter
from carrel_hub.rbac import Resource, Scope, may
from carrel_hub.spawns.limits import limits_of_body
from carrel_hub.spawns.service import find_server
from carrel_hub.spawns.transitions import tell
from carrel_hub.users.access import require_any
from carrel_hub.users.accounts import find_user
from carrel_hub.users.bodies import json_body
from carrel_hub.users.streams import MOST_LOGS, GuardedStream
from carrel_shared.wire.limits import LimitsChange, ServerUsage

MAX_LINES = 2000

router = LateRouter()

SubjectDep = Annotated[Subject, Depends(current_subject)]

_SERVER = "/users/{name}/server"
_NAMED_SERVER = "/users/{name}/servers/{server_name}"


@router.get(f"{_SERVER}/usage")
@router.get(f"{_NAMED_SERVER}/usage")
async def usage(name: str, hub: HubDep, subject: SubjectDep, server_name: str = "") -> JSONResponse:
    """What a running server uses, and its limits."""
    require_any(subject, [Scope.READ_SERVERS], Resource(name, server_name))
    row, host = await _running(hub, name, server_name)
    found = await hub.agents.usage(host, row.id)
    if found is None:
        raise NotFoundError(f"host {host} runs no such server")
    return JSONResponse(_shown(found))


@router.put(f"{_SERVER}/limits")
@router.put(f"{_NAMED_SERVER}/limits")
async def change_limits(
    name: str, request: Request, hub: HubDep, subject: SubjectDep, server_name: str = ""
) -> JSONResponse:
    """Put other limits in force on a running server, until it ends. For administrators."""
    require_any(subject, [Scope.ADMIN_SERVERS], Resource(name, server_name))
    wanted = limits_of_body(json_body(await request.body()) or {})
    row, host = await _running(hub, name, server_name)
    change = LimitsChange(generation=row.generation, limits=wanted.for_agent())
    try:
        found = await hub.agents.change_limits(host, row.id, change)
    except AgentRefusedError as error:
        raise InvalidRequestError(error.message) from error
    if found is None:
        raise NotFoundError(f"host {host} runs no such server")
    async with hub.database.write() as session:
        tell(
            session,
            row,
            "server.limits_changed",
            at=hub.clock.now(),
            actor=subject.actor,
            data=wanted.model_dump(),
        )
    return JSONResponse(_shown(found))


@router.get(f"{_SERVER}/log")
@router.get(f"{_NAMED_SERVER}/log")
async def log(
    name: str,
    request: Request,
    hub: HubDep,
    subject: SubjectDep,
    server_name: str = "",
    lines: Annotated[int, Query(ge=1, le=MAX_LINES)] = 200,
    follow: bool = False,
) -> Response:
    """The last lines a server printed; with `follow` as text, and more as it is printed.

    For its owner and administrators: what a server prints may hold its user's secrets.
    """
    require_any(subject, [Scope.SERVERS], Resource(name, server_name))
    row, host = await _placed(hub, name, server_name)
    if not follow:
        if not row.secret and row.failure is not None:
            # The host may have forgotten it; what was kept of its end is in the row.
            return JSONResponse({"lines": row.failure.get("log_tail", [])[-lines:]})
        return JSONResponse({"lines": await hub.agents.log_tail(host, row.id, lines=lines)})
    stream = hub.agents.follow_log(host, row.id, lines=lines)
    await anext(stream, b"")  # an agent that is away is an error, not a broken stream
    try:
        return GuardedStream(
            stream,
            hub,
            request,
            subject,
            may_go_on=lambda now: may(now, Scope.SERVERS, Resource(name, server_name)),
            kind="log",
            most=MOST_LOGS,
            media_type="text/plain; charset=utf-8",
        )
    except TooManyRequestsError:
        await stream.aclose()
        raise


@router.get(f"{_SERVER}/failure")
@router.get(f"{_NAMED_SERVER}/failure")
async def failure(
    name: str, hub: HubDep, subject: SubjectDep, server_name: str = ""
) -> JSONResponse:
    """Why the last start failed, or the server ended: cause, summary, advice, and last lines."""
    require_any(subject, [Scope.SERVERS], Resource(name, server_name))
    row, _ = await _placed(hub, name, server_name)
    if row.failure is None:
        raise NotFoundError(f"this server of {name} has not failed")
    return JSONResponse(row.failure)


async def _placed(hub: Hub, name: str, server_name: str) -> tuple[Server, str]:
    """Return a server and the host it is on, or was last."""
    async with hub.database.read() as session:
        user = await find_user(session, name)
        row = await find_server(session, user, server_name) if user is not None else None
    if row is None or row.host is None:
        raise NotFoundError(f"{name} has no such server on any host")
    return row, row.host


async def _running(hub: Hub, name: str, server_name: str) -> tuple[Server, str]:
    row, host = await _placed(hub, name, server_name)
    if not row.secret:
        raise NotFoundError(f"this server of {name} does not run")
    return row, host


def _shown(usage: ServerUsage) -> dict[str, object]:
    """Return use and limits in the words of the settings."""
    limits = usage.limits
    return {
        "memory": usage.memory_bytes,
        "memory_peak": usage.memory_peak_bytes,
        "cpu_seconds": usage.cpu_seconds,
        "processes": usage.processes,
        "limits": {
            "memory": limits.memory_bytes,
            "cpu": limits.cpu_cores,
            "processes": limits.processes,
            "open_files": limits.open_files,
            "advisory": limits.advisory,
        },
        "unenforced": usage.unenforced,
    }

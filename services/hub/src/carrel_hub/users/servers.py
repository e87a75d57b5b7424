"""`{hub}api/users/NAME/server` and `/servers/SERVER`: starting, stopping, watching, changing."""

from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.responses import StreamingResponse
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.auth.subjects import Subject, current_subject
from carrel_hub.context import Hub
from carrel_hub.db.models import User
from carrel_hub.deps import HubDep
from carrel_hub.errors import (
    AgentRefusedError,
    AgentUnreachableError,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    StartFailedError,
)
from carrel_hub.json_response import JsonResponse
from carrel_hub.late_routes import LateRouter
from carrel_hub.rbac import Resource, Scope, may
from carrel_hub.spawns.outcomes import Outcomes
from carrel_hub.spawns.service import (
    change_server,
    find_server,
    named_server,
    request_removal,
    request_start,
    request_stop,
    server_to_change,
)
from carrel_hub.spawns.states import ENDED, State
from carrel_hub.users.access import require_any
from carrel_hub.users.accounts import find_user, see_user
from carrel_hub.users.bodies import json_body, server_changes, start_options, wants_removal
from carrel_hub.users.models import never_started, server_model
from carrel_hub.users.progress import check_progress, progress_stream
from carrel_hub.users.shown import show_user
from carrel_hub.users.streams import MOST_PROGRESS, GuardedStream
from carrel_hub.users.waiting import Standing, wait_for_server

router = LateRouter()

SubjectDep = Annotated[Subject, Depends(current_subject)]

_SERVER = "/users/{name}/server"
_DEFAULT_SERVER = "/users/{name}/servers/"
_NAMED_SERVER = "/users/{name}/servers/{server_name}"


@router.get(_SERVER)
@router.get(_DEFAULT_SERVER)
@router.get(_NAMED_SERVER)
async def get_server(
    name: str, hub: HubDep, subject: SubjectDep, server_name: str = ""
) -> JsonResponse:
    """One server, running or not."""
    require_any(subject, [Scope.READ_SERVERS], Resource(name, server_name))
    async with hub.database.read() as session:
        user = await _user(session, name)
        row = await find_server(session, user, server_name)
    if row is None and server_name:
        raise NotFoundError(f"{name} has no server {server_name!r}")
    row = row or never_started(user)
    return JsonResponse(server_model(user, row, subject, hub.settings))


@router.put(_SERVER)
@router.put(_DEFAULT_SERVER)
@router.put(_NAMED_SERVER)
async def make_server(
    name: str, request: Request, hub: HubDep, subject: SubjectDep, server_name: str = ""
) -> JsonResponse:
    """Make the record of a named server without starting it."""
    require_any(subject, [Scope.START_SERVERS], Resource(name, server_name))
    raw = await request.body()
    async with hub.database.write() as session:
        user = await _user(session, name)
        wanted = start_options(json_body(raw))
        if not server_name or await find_server(session, user, server_name) is not None:
            raise ConflictError(f"{name} has this server already")
        row = await named_server(session, hub, user, server_name, actor=subject.actor)
        await change_server(
            session,
            hub,
            user,
            row,
            actor=subject.actor,
            display_name=wanted.display_name,
            user_options=wanted.options,
        )
    return JsonResponse(server_model(user, row, subject, hub.settings), status_code=201)


@router.patch(_SERVER)
@router.patch(_DEFAULT_SERVER)
@router.patch(_NAMED_SERVER)
async def patch_server(
    name: str, request: Request, hub: HubDep, subject: SubjectDep, server_name: str = ""
) -> JsonResponse:
    """Rename a server that does not run, or change what is kept of it."""
    require_any(subject, [Scope.START_SERVERS], Resource(name, server_name))
    raw = await request.body()
    async with hub.database.write() as session:
        user = await _user(session, name)
        wanted = server_changes(json_body(raw))
        if wanted.name is not None:
            require_any(subject, [Scope.START_SERVERS], Resource(name, wanted.name))
        row = await server_to_change(session, user, server_name)
        if row is None:
            if server_name:
                raise NotFoundError(f"{name} has no server {server_name!r}")
            row = await named_server(session, hub, user, server_name, actor=subject.actor)
        if wanted.name == row.name:
            raise ConflictError(f"This server of {name} is called {row.name!r} already")
        await change_server(
            session,
            hub,
            user,
            row,
            actor=subject.actor,
            name=wanted.name,
            display_name=wanted.display_name,
            user_options=wanted.options,
        )
    return JsonResponse(server_model(user, row, subject, hub.settings))


@router.post(_SERVER)
@router.post(_DEFAULT_SERVER)
@router.post(_NAMED_SERVER)
async def start_server(
    name: str, request: Request, hub: HubDep, subject: SubjectDep, server_name: str = ""
) -> Response:
    """Start a server: 201 when it is ready within `slow_spawn_seconds`, else 202."""
    require_any(subject, [Scope.START_SERVERS], Resource(name, server_name))
    raw = await request.body()
    await _look_again(hub, name, server_name)
    async with hub.database.write() as session:
        user = await _user(session, name)
        wanted = start_options(json_body(raw))
        row = await request_start(
            session,
            hub,
            user,
            actor=subject.actor,
            server_name=server_name,
            user_options=wanted.options,
            display_name=wanted.display_name,
        )
    await hub.wakeups.notify(row.id)
    generation = row.generation

    def settled(now: Standing) -> bool:
        return now.generation != generation or now.state not in (State.QUEUED, State.STARTING)

    found = await wait_for_server(hub, row.id, settled, seconds=hub.settings.slow_spawn_seconds)
    if found is not None and found.generation == generation:
        if found.state == State.FAILED:
            summary = (found.failure or {}).get("summary", "")
            raise StartFailedError(f"Error starting the server of {name}: {summary}")
        if found.state in (State.READY, State.UNKNOWN):
            return _empty(201)
        if found.state in (State.STOPPED, State.STOPPING):
            raise StartFailedError(f"The start of the server of {name} was cancelled")
    return _empty(202)


@router.delete(_SERVER)
@router.delete(_DEFAULT_SERVER)
@router.delete(_NAMED_SERVER)
async def stop_server(
    name: str, request: Request, hub: HubDep, subject: SubjectDep, server_name: str = ""
) -> Response:
    """Stop a server: 204 when none runs within `slow_stop_seconds`, else 202."""
    require_any(subject, [Scope.DELETE_SERVERS], Resource(name, server_name))
    raw = await request.body()
    async with hub.database.write() as session:
        user = await _user(session, name)
        remove = wants_removal(json_body(raw))
        if remove and not server_name:
            raise InvalidRequestError("The default server cannot be removed, only stopped")
        if server_name and not hub.settings.allow_named_servers:
            raise InvalidRequestError("Named servers are not enabled")
        row = await server_to_change(session, user, server_name)
        if row is None:
            if server_name:
                raise NotFoundError(f"{name} has no server {server_name!r}")
            return _empty(204)
        ask = request_removal if remove else request_stop
        await ask(session, hub, row, actor=subject.actor, reason=f"{subject.name} stopped it")
    await hub.wakeups.notify(row.id)
    found = await wait_for_server(
        hub, row.id, lambda now: now.state in ENDED, seconds=hub.settings.slow_stop_seconds
    )
    return _empty(204 if found is None or found.state in ENDED else 202)


@router.get(f"{_SERVER}/progress")
@router.get(f"{_DEFAULT_SERVER}/progress")
@router.get(f"{_NAMED_SERVER}/progress")
async def progress(
    name: str, request: Request, hub: HubDep, subject: SubjectDep, server_name: str = ""
) -> StreamingResponse:
    """How a start goes on, as an event stream."""
    require_any(subject, [Scope.READ_SERVERS], Resource(name, server_name))
    async with hub.database.read() as session:
        user = await _user(session, name)
        row = check_progress(user, await find_server(session, user, server_name))
    return GuardedStream(
        progress_stream(hub, user, row),
        hub,
        request,
        subject,
        may_go_on=lambda now: may(now, Scope.READ_SERVERS, Resource(name, server_name)),
        kind="progress",
        most=MOST_PROGRESS,
        media_type="text/event-stream",
    )


async def _look_again(hub: Hub, name: str, server_name: str) -> None:
    """Ask the host of a server that is said to run whether it still does."""
    shown = await show_user(hub.database, name)
    said = {row.name: row.state for row in shown.servers} if shown is not None else {}
    if said.get(server_name) != State.READY:
        return
    async with hub.database.read() as session:
        user = await find_user(session, name)
        row = await find_server(session, user, server_name) if user is not None else None
    if row is None or row.host is None:
        return
    try:
        report = await hub.agents.server(row.host, row.id)
    except (AgentUnreachableError, AgentRefusedError):
        return  # unknown is not dead
    if report is not None and report.exit is not None:
        await Outcomes(hub).absorb(row, report)


async def _user(session: AsyncSession, name: str) -> User:
    user = await see_user(session, name)
    if user is None:
        raise NotFoundError("")
    return user


def _empty(status: int) -> Response:
    """No body, and no JSON type: JupyterHub's own pages would try to parse it."""
    headers: dict[str, Any] = {} if status == 204 else {"content-type": "text/plain"}
    return Response(status_code=status, headers=headers)

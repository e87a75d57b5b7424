"""`{hub}api/user` and `{hub}api/users/NAME`: people and their servers."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.auth.subjects import Subject, current_subject, require_user
from carrel_hub.db.models import Server, User
from carrel_hub.deps import HubDep
from carrel_hub.errors import InvalidRequestError, NotFoundError, StartFailedError
from carrel_hub.events import user_actor
from carrel_hub.rbac import Resource, Scope, identify_scopes
from carrel_hub.spawns.service import find_server, request_start, request_stop
from carrel_hub.spawns.states import ENDED, State
from carrel_hub.users.access import require_any
from carrel_hub.users.accounts import find_user
from carrel_hub.users.bodies import json_body, start_options, wants_removal, wants_stopped
from carrel_hub.users.listing import with_details
from carrel_hub.users.models import USER_KEYS, Widened, server_model, user_model
from carrel_hub.users.progress import check_progress, progress_stream
from carrel_hub.users.waiting import wait_for_server

router = APIRouter()

SubjectDep = Annotated[Subject, Depends(current_subject)]

_SERVER = "/users/{name}/server"
_DEFAULT_SERVER = "/users/{name}/servers/"
_NAMED_SERVER = "/users/{name}/servers/{server_name}"

_READ_ANY = [scope for scope in USER_KEYS if scope is not Scope.ADMIN_AUTH_STATE]


@router.get("/user")
async def whoami(
    request: Request, hub: HubDep, subject: Annotated[Subject, Depends(require_user)]
) -> JSONResponse:
    """Who the caller is and what they may do: the endpoint every client asks first."""
    user = subject.require_user()
    with_stopped = wants_stopped(request.query_params)
    async with hub.database.read() as session:
        [listed] = await with_details(session, [user], with_stopped=with_stopped)
    actor = Widened(subject.scopes | identify_scopes(user.name), subject.members)
    model = user_model(
        user,
        listed.servers,
        actor,
        hub.settings,
        groups=listed.groups,
        with_stopped=with_stopped,
    )
    token = subject.token
    model["token_id"] = f"a{token.id}" if token is not None else None
    model["session_id"] = token.session_hash if token is not None else None
    model["scopes"] = sorted(subject.scopes)
    return JSONResponse(model)


@router.get("/users/{name}")
async def get_user(name: str, request: Request, hub: HubDep, subject: SubjectDep) -> JSONResponse:
    """One user, as far as the caller may see them."""
    require_any(subject, _READ_ANY, Resource(name))
    with_stopped = wants_stopped(request.query_params)
    async with hub.database.read() as session:
        user = await _user(session, name)
        [listed] = await with_details(session, [user], with_stopped=with_stopped)
    return JSONResponse(
        user_model(
            user,
            listed.servers,
            subject,
            hub.settings,
            groups=listed.groups,
            with_stopped=with_stopped,
        )
    )


@router.get(_SERVER)
@router.get(_DEFAULT_SERVER)
@router.get(_NAMED_SERVER)
async def get_server(
    name: str, hub: HubDep, subject: SubjectDep, server_name: str = ""
) -> JSONResponse:
    """One server, running or not."""
    require_any(subject, [Scope.READ_SERVERS], Resource(name, server_name))
    async with hub.database.read() as session:
        user = await _user(session, name)
        row = await find_server(session, user, server_name)
    if row is None:
        raise NotFoundError(f"{name} has no server {server_name!r}")
    return JSONResponse(server_model(user, row, subject, hub.settings))


@router.post(_SERVER)
@router.post(_DEFAULT_SERVER)
@router.post(_NAMED_SERVER)
async def start_server(
    name: str, request: Request, hub: HubDep, subject: SubjectDep, server_name: str = ""
) -> Response:
    """Start a server: 201 when it is ready within `slow_spawn_seconds`, else 202."""
    require_any(subject, [Scope.START_SERVERS], Resource(name, server_name))
    options = start_options(json_body(await request.body()))
    async with hub.database.write() as session:
        user = await _user(session, name)
        _refuse_named(server_name)
        row = await request_start(
            session,
            hub,
            user,
            actor=user_actor(subject.name),
            server_name=server_name,
            user_options=options,
        )
    await hub.wakeups.notify(row.id)
    generation = row.generation

    def settled(now: Server) -> bool:
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
    """Stop a server: 204 when none runs within `slow_spawn_seconds`, else 202."""
    require_any(subject, [Scope.DELETE_SERVERS], Resource(name, server_name))
    if wants_removal(json_body(await request.body())) and not server_name:
        raise InvalidRequestError("The default server cannot be removed, only stopped")
    async with hub.database.write() as session:
        user = await _user(session, name)
        _refuse_named(server_name)
        row = await find_server(session, user, server_name)
        if row is None:
            return _empty(204)
        actor = user_actor(subject.name)
        await request_stop(session, hub, row, actor=actor, reason=f"{subject.name} stopped it")
    await hub.wakeups.notify(row.id)
    found = await wait_for_server(
        hub, row.id, lambda now: now.state in ENDED, seconds=hub.settings.slow_spawn_seconds
    )
    return _empty(204 if found is None or found.state in ENDED else 202)


@router.get(f"{_SERVER}/progress")
@router.get(f"{_NAMED_SERVER}/progress")
async def progress(
    name: str, hub: HubDep, subject: SubjectDep, server_name: str = ""
) -> StreamingResponse:
    """How a start goes on, as an event stream."""
    require_any(subject, [Scope.READ_SERVERS], Resource(name, server_name))
    async with hub.database.read() as session:
        user = await _user(session, name)
        row = check_progress(user, await find_server(session, user, server_name))
    return StreamingResponse(
        progress_stream(hub, user, row),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


async def _user(session: AsyncSession, name: str) -> User:
    user = await find_user(session, name)
    if user is None:
        raise NotFoundError("")
    return user


def _refuse_named(server_name: str) -> None:
    if server_name:
        raise InvalidRequestError("Named servers are not enabled")


def _empty(status: int) -> Response:
    """No body, and no JSON type: JupyterHub's own pages would try to parse it."""
    headers: dict[str, Any] = {} if status == 204 else {"content-type": "text/plain"}
    return Response(status_code=status, headers=headers)

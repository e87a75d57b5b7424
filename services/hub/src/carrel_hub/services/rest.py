"""`{hub}api/services`: programs beside the hub."""

from typing import Annotated

from fastapi import Depends, Query, Request, Response
from fastapi.responses import JSONResponse
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.auth.subjects import Subject, current_subject
from carrel_hub.context import Hub
from carrel_hub.db.models import Service
from carrel_hub.deps import HubDep
from carrel_hub.errors import ConflictError, InvalidRequestError, NotAllowedError, NotFoundError
from carrel_hub.groups.membership import members_for
from carrel_hub.late_routes import LateRouter
from carrel_hub.rbac import (
    Scope,
    ServiceResource,
    authorise,
    authorise_any,
    expand,
    extent,
    is_administrator,
    is_within,
    resolve,
)
from carrel_hub.services.bodies import WantedService, wanted_service
from carrel_hub.services.managed import find_run, pids
from carrel_hub.services.models import SERVICE_KEYS, service_model
from carrel_hub.services.store import delete_service, find_service, list_services, put_service
from carrel_hub.users.bodies import json_body

router = LateRouter()

MAX_LINES = 2000

SubjectDep = Annotated[Subject, Depends(current_subject)]


@router.get("/services")
async def get_services(hub: HubDep, subject: SubjectDep) -> JSONResponse:
    """The services the caller may list, by name."""
    seen = extent(subject, Scope.LIST_SERVICES, {"user", "group", "server", "service"})
    async with hub.database.read() as session:
        rows = await list_services(session, seen)
        found = await pids(session, [row.name for row in rows])
    return JSONResponse(
        {row.name: _model(hub, row, subject, found.get(row.name, 0)) for row in rows}
    )


@router.get("/services/{name}")
async def get_service(name: str, hub: HubDep, subject: SubjectDep) -> JSONResponse:
    """One service, as far as the caller may see it."""
    authorise_any(subject, [*SERVICE_KEYS], ServiceResource(name))
    async with hub.database.read() as session:
        row = await _service(session, name)
        found = await pids(session, [name])
    return JSONResponse(_model(hub, row, subject, found.get(name, 0)))


@router.get("/services/{name}/log")
async def get_log(
    name: str,
    hub: HubDep,
    subject: SubjectDep,
    lines: Annotated[int, Query(ge=1, le=MAX_LINES)] = 200,
) -> JSONResponse:
    """The last lines that a service which is run from here printed. They may hold its secrets."""
    authorise(subject, Scope.ADMIN_SERVICES, ServiceResource(name))
    async with hub.database.read() as session:
        await _service(session, name)
        run = await find_run(session, name)
    if run is None:
        raise NotFoundError(f"Service {name} is not run from here")
    return JSONResponse({"lines": await hub.agents.log_tail(run.host, run.id, lines=lines)})


@router.post("/services/{name}")
async def post_service(
    name: str, request: Request, hub: HubDep, subject: SubjectDep
) -> JSONResponse:
    """Make a service that runs elsewhere."""
    authorise(subject, Scope.ADMIN_SERVICES, ServiceResource(name))
    wanted = wanted_service(name, json_body(await request.body()), hub.settings.role_book)
    async with hub.database.write() as session:
        if await find_service(session, name) is not None:
            raise ConflictError(f"Service {name} already exists")
        await _refuse_beyond(session, subject, wanted)
        row = await put_service(session, hub, wanted, actor=subject.actor, from_settings=False)
    return JSONResponse(_model(hub, row, subject), status_code=201)


@router.delete("/services/{name}")
async def remove_service(name: str, hub: HubDep, subject: SubjectDep) -> Response:
    """Delete a service that was made over the API."""
    authorise(subject, Scope.ADMIN_SERVICES, ServiceResource(name))
    async with hub.database.write() as session:
        row = await _service(session, name)
        if row.from_settings:
            raise NotAllowedError(f"Service {name} is in the hub's settings; remove it there")
        await delete_service(session, hub, row, actor=subject.actor)
    return Response(status_code=200, headers={"content-type": "text/plain"})


async def _refuse_beyond(session: AsyncSession, subject: Subject, wanted: WantedService) -> None:
    """Refuse a service that could do, or be given, more than whoever makes it may.

    Raises:
        InvalidRequestError: It could.
    """
    if (wanted.admin or wanted.no_confirm) and not is_administrator(subject):
        raise InvalidRequestError("admin and oauth_no_confirm are an administrator's to give")
    # What is filtered to whoever signs in can be anybody's.
    given = [text.removesuffix("!user") for text in wanted.allowed_scopes]
    asked = expand(resolve(given, "", service=wanted.name))
    members = {**subject.members, **await members_for(session, asked)}
    if not is_within(asked, subject.scopes, members):
        raise InvalidRequestError("oauth_client_allowed_scopes go beyond what you may yourself")


async def _service(session: AsyncSession, name: str) -> Service:
    row = await find_service(session, name)
    if row is None:
        raise NotFoundError("")
    return row


def _model(hub: Hub, row: Service, subject: Subject, pid: int = 0) -> dict[str, object]:
    settings = hub.settings
    return service_model(
        row, subject, base_url=settings.base_url, roles=settings.role_book, pid=pid
    )

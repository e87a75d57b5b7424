"""`{hub}api/info`, `/proxy` and `/shutdown`: the hub itself."""

import os
import signal
import sys
from typing import Annotated, Any

import structlog
from fastapi import Depends, Request, Response
from fastapi.responses import JSONResponse
from sqlmodel import col, select
from starlette.background import BackgroundTask

from carrel_hub import JUPYTERHUB_API_VERSION, __version__
from carrel_hub.auth.subjects import Subject, current_subject
from carrel_hub.db.models import Server, Service, User
from carrel_hub.deps import HubDep
from carrel_hub.errors import InvalidRequestError
from carrel_hub.events import HUB_ACTOR, record
from carrel_hub.hosts.standing import relays
from carrel_hub.late_routes import LateRouter
from carrel_hub.rbac import Scope, authorise
from carrel_hub.replicas.presence import hub_targets
from carrel_hub.routing.desired import hub_routes, service_route
from carrel_hub.spawns.service import request_stop_all
from carrel_hub.users.bodies import json_body
from carrel_hub.users.paging import page_reply, read_page

log = structlog.get_logger(__name__)

router = LateRouter()

SubjectDep = Annotated[Subject, Depends(current_subject)]


@router.get("/info")
async def info(hub: HubDep, subject: SubjectDep) -> JSONResponse:
    """What runs here."""
    authorise(subject, Scope.READ_HUB)
    authenticator = hub.settings.auth.authenticator
    return JSONResponse(
        {
            "version": JUPYTERHUB_API_VERSION,
            "python": sys.version,
            "sys_executable": sys.executable,
            "spawner": {"class": "carrel_agent.Agent", "version": __version__},
            "authenticator": {"class": f"carrel_hub.auth.{authenticator}", "version": __version__},
        }
    )


@router.get("/proxy")
async def get_routes(request: Request, hub: HubDep, subject: SubjectDep) -> JSONResponse:
    """The routes that the proxies are sent, without what is secret in them."""
    authorise(subject, Scope.PROXY)
    page = read_page(request)
    settings = hub.settings
    statement = (
        select(Server.name, Server.address, User.name)
        .join(User, col(User.id) == col(Server.user_id))
        .where(col(Server.route_number).is_not(None), col(Server.address).is_not(None))
    )
    async with hub.database.read() as session:
        rows = (await session.exec(statement)).all()
        listening = select(Service).where(col(Service.url).is_not(None))
        services = (await session.exec(listening)).all()
        hubs, elsewhere = await hub_targets(session), await relays(session)
    routes = {}
    for hub_route in hub_routes(settings, hubs):
        spec = f"{hub_route.host}{hub_route.prefix}"
        routes[spec] = _route(spec, hub_route.targets[0], {"hub": True})
    for service in services:
        route = service_route(service, settings.places, elsewhere)
        if route is None:
            continue
        spec = f"{route.host}{route.prefix}"
        routes[spec] = _route(spec, route.targets[0], {"service": service.name})
    for name, address, user in rows:
        spec = settings.places.host(user) + settings.places.prefix(user, name)
        routes[spec] = _route(spec, str(address), {"user": user, "server_name": name})
    names = sorted(routes)
    if page.described or request.query_params.keys() & {"limit", "offset"}:  # else: all of them
        names = names[page.offset : page.offset + page.limit]
    shown = {name: routes[name] for name in names}
    return JSONResponse(page_reply(request, page, shown, len(routes)))


@router.post("/proxy")
async def check_routes(hub: HubDep, subject: SubjectDep) -> Response:
    """Have every proxy brought up to date now."""
    authorise(subject, Scope.PROXY)
    async with hub.database.write() as session:
        at = hub.clock.now()
        record(session, "proxy.check_requested", subject.actor, HUB_ACTOR, at=at)
    await hub.wakeups.notify()
    return Response(status_code=200, headers={"content-type": "text/plain"})


@router.patch("/proxy")
async def patch_proxy(request: Request, subject: SubjectDep) -> Response:
    """Refused: where proxies are is said in the settings."""
    authorise(subject, Scope.PROXY)
    if not isinstance(json_body(await request.body()), dict):
        raise InvalidRequestError("The body must be a JSON object")
    raise InvalidRequestError("Where proxies are is said in the hub's settings, not over the API")


@router.post("/shutdown")
async def shutdown(request: Request, hub: HubDep, subject: SubjectDep) -> JSONResponse:
    """End the hub. Servers go on, unless the body says `{"servers": true}`.

    Whatever started the hub may start it again, as `carrel up` does.
    """
    authorise(subject, Scope.SHUTDOWN)
    body = json_body(await request.body())
    body = {} if body is None else body
    if not isinstance(body, dict):
        raise InvalidRequestError("The body must be a JSON object")
    for key in ("proxy", "servers"):
        if not isinstance(body.get(key, False), bool):
            raise InvalidRequestError(f"{key} must be true or false")
    actor, ids = subject.actor, []
    async with hub.database.write() as session:
        record(session, "hub.shutdown_requested", actor, HUB_ACTOR, at=hub.clock.now())
        if body.get("servers"):
            ids = await request_stop_all(
                session, hub, actor=actor, reason=f"{subject.name} shut the hub down"
            )
    if ids:
        await hub.wakeups.notify(*ids)
    log.warning("shutdown_requested", actor=actor)
    return JSONResponse(
        {"message": "Shutting down the hub"},
        status_code=202,
        background=BackgroundTask(end_process),
    )


def end_process() -> None:
    """Ask this process to end as its supervisor would."""
    os.kill(os.getpid(), signal.SIGTERM)


def _route(prefix: str, target: str, data: dict[str, Any]) -> dict[str, Any]:
    return {"routespec": prefix, "target": target, "data": data}

"""`{hub}api/hosts`: what hosts there are, and their coming and going. For administrators."""

from datetime import timedelta
from typing import Annotated

from fastapi import Depends, Request, Response
from fastapi.responses import JSONResponse

from carrel_hub.auth.subjects import Subject, current_subject
from carrel_hub.deps import HubDep
from carrel_hub.errors import ForbiddenError, InvalidRequestError, NotFoundError
from carrel_hub.events import agent_actor, record
from carrel_hub.hosts.accounts import forget_pin
from carrel_hub.hosts.joining import issue_join_token
from carrel_hub.hosts.keeping import accept_machine, evacuate, find_host, remove_host, set_draining
from carrel_hub.hosts.listing import host_model, list_host_models
from carrel_hub.late_routes import LateRouter
from carrel_hub.rbac import is_administrator
from carrel_hub.rbac.decisions import NO_CREDENTIALS
from carrel_hub.users.accounts import find_user
from carrel_hub.users.bodies import json_body
from carrel_hub.users.models import timestamp

router = LateRouter()


async def _administrator(subject: Annotated[Subject, Depends(current_subject)]) -> Subject:
    if subject.is_anonymous:
        raise ForbiddenError(NO_CREDENTIALS)
    if not is_administrator(subject):
        raise ForbiddenError("Hosts are for administrators")
    return subject


AdminDep = Annotated[Subject, Depends(_administrator)]


@router.get("/hosts")
async def list_hosts(hub: HubDep, _admin: AdminDep) -> JSONResponse:
    """Every host: those of the settings, those that joined, and those a token awaits."""
    async with hub.database.read() as session:
        models = await list_host_models(session, hub)
    return JSONResponse({"hosts": models})


@router.post("/hosts/{name}/token", status_code=201)
async def make_token(name: str, request: Request, hub: HubDep, admin: AdminDep) -> JSONResponse:
    """Let one host join under this name, once."""
    body = json_body(await request.body()) or {}
    seconds = body.get("expires_in", 3600) if isinstance(body, dict) else None
    if not isinstance(seconds, int) or isinstance(seconds, bool) or not 0 < seconds <= 7 * 86400:
        raise InvalidRequestError("expires_in must be a number of seconds, a week at most")
    if hub.settings.fleet_listen is None:
        raise InvalidRequestError("the hub's setting fleet_listen is not set, so nobody can join")
    async with hub.database.write() as session:
        lifetime = timedelta(seconds=seconds)
        new = await issue_join_token(session, hub, name, actor=admin.actor, lifetime=lifetime)
    return JSONResponse(
        {"name": name, "token": new.text, "expires_at": timestamp(new.expires_at)},
        status_code=201,
    )


@router.post("/hosts/{name}/drain")
async def drain(name: str, hub: HubDep, admin: AdminDep) -> JSONResponse:
    """Place nothing new there."""
    return await _set_draining(hub, name, admin, True)


@router.delete("/hosts/{name}/drain")
async def take_in(name: str, hub: HubDep, admin: AdminDep) -> JSONResponse:
    """Place servers there again."""
    return await _set_draining(hub, name, admin, False)


async def _set_draining(hub: HubDep, name: str, admin: Subject, on: bool) -> JSONResponse:
    async with hub.database.write() as session:
        host = await find_host(session, hub, name)
        await set_draining(session, hub, host, on, actor=admin.actor)
    return JSONResponse(host_model(hub, host, None))


@router.post("/hosts/{name}/accept")
async def accept(name: str, hub: HubDep, admin: AdminDep) -> JSONResponse:
    """Take the machine for this host that was refused with its credentials."""
    async with hub.database.write() as session:
        host = await find_host(session, hub, name)
        await accept_machine(session, hub, host, actor=admin.actor)
    return JSONResponse(host_model(hub, host, None))


@router.post("/hosts/{name}/evacuate", status_code=202)
async def empty(name: str, hub: HubDep, admin: AdminDep) -> JSONResponse:
    """Drain a host and have its servers end."""
    async with hub.database.write() as session:
        host = await find_host(session, hub, name)
        ids = await evacuate(session, hub, host, actor=admin.actor)
    await hub.wakeups.notify(*ids)
    return JSONResponse({**host_model(hub, host, None), "stopping": ids}, status_code=202)


@router.delete("/hosts/{name}", status_code=204)
async def remove(name: str, request: Request, hub: HubDep, admin: AdminDep) -> Response:
    """Take a host away; `{"servers": "lost"}` says that what it ran is over."""
    body = json_body(await request.body()) or {}
    said = body.get("servers") if isinstance(body, dict) else body
    if said not in (None, "lost"):
        raise InvalidRequestError('servers can only be "lost"')
    async with hub.database.write() as session:
        host = await find_host(session, hub, name)
        ids = await remove_host(
            session, hub, host, actor=admin.actor, servers_are_lost=said == "lost"
        )
    await hub.wakeups.notify(*ids)
    return Response(status_code=204)


@router.delete("/hosts/{name}/accounts/{user}", status_code=204)
async def forget_account(name: str, user: str, hub: HubDep, admin: AdminDep) -> Response:
    """Forget which uid somebody had there; the next start says it anew."""
    async with hub.database.write() as session:
        found = await find_user(session, user)
        if found is None or not await forget_pin(session, found, name):
            raise NotFoundError(f"{user!r} has had no server on host {name!r}")
        at, data = hub.clock.now(), {"user": user}
        record(session, "host.account_forgotten", admin.actor, agent_actor(name), at=at, data=data)
    return Response(status_code=204)

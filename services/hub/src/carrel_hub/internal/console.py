"""What the person at the console of `carrel up` asks for."""

from datetime import timedelta

from fastapi import Request, Response
from sqlmodel import col, select

from carrel_hub.auth.links import create_link
from carrel_hub.auth.names import InvalidNameError, normalise_name
from carrel_hub.auth.tokens import issue_token
from carrel_hub.db.models import Server, User
from carrel_hub.deps import HubDep
from carrel_hub.errors import InvalidRequestError, NotFoundError
from carrel_hub.events import CONSOLE_ACTOR
from carrel_hub.hosts.joining import issue_join_token
from carrel_hub.internal.callers import require_caller
from carrel_hub.late_routes import LateRouter
from carrel_hub.services.managed import SERVICES, running, want_none
from carrel_hub.spawns.service import request_stop_all
from carrel_hub.spawns.states import ENDED
from carrel_hub.users.accounts import find_user, get_or_create_user
from carrel_shared.wire.console import (
    JoinTokenReply,
    JoinTokenRequest,
    LinkReply,
    LinkRequest,
    RunningServer,
    RunningServers,
    StopAllRequest,
    TokenReply,
    TokenRequest,
)

router = LateRouter(prefix="/internal/v1/console")


@router.post("/link")
async def link(body: LinkRequest, request: Request, hub: HubDep) -> LinkReply:
    """Make a one-time sign-in link, and its user if need be."""
    require_caller(request, "console")
    name = _name(body.user)
    async with hub.database.write() as session:
        user = await get_or_create_user(
            session,
            name,
            at=hub.clock.now(),
            account=body.account,
            admin=body.admin,
            console=True,
            actor=CONSOLE_ACTOR,
        )
        new = await create_link(session, hub, user)
    origin = hub.settings.places.hub_origin
    return LinkReply(path=new.path, expires_at=new.expires_at, origin=origin)


@router.post("/token")
async def token(body: TokenRequest, request: Request, hub: HubDep) -> TokenReply:
    """Make an API token for a user who exists."""
    require_caller(request, "console")
    name = _name(body.user)
    lifetime = None
    if body.expires_in_seconds is not None:
        lifetime = timedelta(seconds=body.expires_in_seconds)
    async with hub.database.write() as session:
        user = await find_user(session, name)
        if user is None:
            raise NotFoundError(f"there is no user {name!r}")
        new = await issue_token(
            session, hub, user, actor=CONSOLE_ACTOR, note=body.note, expires_in=lifetime
        )
    return TokenReply(token=new.secret)


@router.post("/join-token")
async def join_token(body: JoinTokenRequest, request: Request, hub: HubDep) -> JoinTokenReply:
    """Let one host join, once."""
    require_caller(request, "console")
    if hub.settings.fleet_listen is None:
        raise InvalidRequestError(
            'no other machine can reach the hub: set fleet_listen = "0.0.0.0:8444" in [hub]'
        )
    async with hub.database.write() as session:
        new = await issue_join_token(session, hub, body.host, actor=CONSOLE_ACTOR)
    return JoinTokenReply(token=new.text, expires_at=new.expires_at)


@router.get("/servers")
async def servers(request: Request, hub: HubDep) -> RunningServers:
    """Every server that is not stopped."""
    require_caller(request, "console")
    statement = (
        select(Server, User.name)
        .join(User, col(User.id) == col(Server.user_id))
        .where(col(Server.state).not_in(ENDED))
        .order_by(col(User.name), col(Server.name))
    )
    async with hub.database.read() as session:
        rows = (await session.exec(statement)).all()
        services = [run.service for run in await running(session)]
    return RunningServers(
        services=services,
        servers=[
            RunningServer(server_id=row.id, user=user, name=row.name, state=row.state)
            for row, user in rows
        ],
    )


@router.post("/stop-all", status_code=202)
async def stop_all(body: StopAllRequest, request: Request, hub: HubDep) -> Response:
    """Ask for every server to end."""
    require_caller(request, "console")
    async with hub.database.write() as session:
        ids = await request_stop_all(session, hub, actor=CONSOLE_ACTOR, reason=body.reason)
        await want_none(session)
    await hub.wakeups.notify(*ids, SERVICES)
    return Response(status_code=202)


def _name(raw: str) -> str:
    try:
        return normalise_name(raw)
    except InvalidNameError as error:
        raise InvalidRequestError(f"{raw!r} cannot be a user's name: {error}") from error

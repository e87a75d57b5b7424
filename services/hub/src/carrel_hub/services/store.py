"""Rows of services: made, changed, removed, each with its tokens, its client and its route."""

from urllib.parse import quote

from sqlalchemy.exc import IntegrityError
from sqlmodel import col, or_, select
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.auth.digest import digest
from carrel_hub.auth.tokens import issue_token, revoke_token
from carrel_hub.context import Hub
from carrel_hub.db.models import Service, Token, User
from carrel_hub.errors import ConflictError
from carrel_hub.events import record, service_actor
from carrel_hub.hosts.standing import relays
from carrel_hub.places import Places
from carrel_hub.rbac import Extent, Scope
from carrel_hub.routing.changes import append_change
from carrel_hub.routing.desired import service_route
from carrel_hub.services.bodies import WantedService
from carrel_hub.services.models import service_prefix
from carrel_shared.wire.routes import DeleteRoute, PutRoute

CONFIGURED_NOTE = "From the service's settings"
"""The note of the token that was given with a service."""


async def find_service(session: AsyncSession, name: str) -> Service | None:
    """Return the service of that name."""
    return (await session.exec(select(Service).where(Service.name == name))).first()


async def list_services(session: AsyncSession, seen: Extent) -> list[Service]:
    """Return the services that the caller may list, in the order they were made."""
    statement = select(Service).order_by(col(Service.id))
    if not seen.all:
        statement = statement.where(col(Service.name).in_(seen.services))
    return list((await session.exec(statement)).all())


async def put_service(
    session: AsyncSession, hub: Hub, wanted: WantedService, *, actor: str, from_settings: bool
) -> Service:
    """Make a service, or make one that is there what it is to be. Its token, client, route follow.

    Raises:
        ConflictError: Another service has its token or its client id.
    """
    row = await find_service(session, wanted.name)
    new = row is None
    row = row or Service(name=wanted.name, created=hub.clock.now())
    before = None if new else row.model_copy()
    known = row.model_dump()
    _fill(row, wanted, hub.settings.places, from_settings=from_settings)
    try:
        async with session.begin_nested():
            session.add(row)
    except IntegrityError as error:
        raise ConflictError("Another service has this name or this client id") from error
    if before is not None and before.client_id not in (None, row.client_id):
        await _end_client(session, hub, before, actor=actor)
    await _set_token(session, hub, row, wanted.api_token, actor=actor)
    if new:
        record(session, "service.created", actor, service_actor(row.name), at=hub.clock.now())
    elif known != row.model_dump():
        record(session, "service.changed", actor, service_actor(row.name), at=hub.clock.now())
    if (row.url, row.host) != ((before.url, before.host) if before else (None, "")):
        await set_route(session, hub, row)
    return row


def _fill(row: Service, wanted: WantedService, places: Places, *, from_settings: bool) -> None:
    has_client = bool(wanted.url or wanted.client_id or wanted.redirect_uri)
    row.admin, row.from_settings, row.url = wanted.admin, from_settings, wanted.url
    row.info, row.display, row.command = wanted.info, wanted.display, wanted.command
    row.host = wanted.host
    row.client_id = row.redirect_uri = None
    if has_client:
        row.client_id = wanted.client_id or f"service-{quote(wanted.name, safe='')}"
        prefix = service_prefix(places.base_url, wanted.name)
        callback = f"{places.service_origin(wanted.name)}{prefix}oauth_callback"
        row.redirect_uri = wanted.redirect_uri or callback
    row.allowed_scopes, row.no_confirm = wanted.allowed_scopes, wanted.no_confirm
    row.secret_hash = digest(wanted.api_token) if wanted.api_token else ""


async def _set_token(
    session: AsyncSession, hub: Hub, row: Service, secret: str | None, *, actor: str
) -> None:
    """Let a service act with the token it was given, and with no earlier one of that kind."""
    statement = select(Token).where(Token.service_id == row.id, Token.note == CONFIGURED_NOTE)
    wanted = digest(secret) if secret else None
    for token in (await session.exec(statement)).all():
        if token.token_hash == wanted:
            return
        await revoke_token(
            session, hub, token, actor=actor, owner=row, reason="The service has another token."
        )
    if secret is None:
        return
    taken = (await session.exec(select(Token.id).where(Token.token_hash == wanted))).first()
    if taken is not None:
        raise ConflictError("This api_token is in use already; choose another")
    await issue_token(
        session,
        hub,
        row,
        actor=actor,
        scopes=(Scope.INHERIT,),
        note=CONFIGURED_NOTE,
        secret=secret,
    )


async def set_route(session: AsyncSession, hub: Hub, row: Service) -> None:
    """Have proxies lead to a service, or to none where it cannot be reached."""
    places = hub.settings.places
    route = service_route(row, places, await relays(session) if row.host else {})
    if route is None:
        prefix = service_prefix(places.base_url, row.name)
        await append_change(session, DeleteRoute(host=places.service_host(row.name), prefix=prefix))
    else:
        await append_change(session, PutRoute(route=route))


async def set_routes_of_host(session: AsyncSession, hub: Hub, host: str) -> None:
    """Have proxies find what a host runs, which has joined, moved, or gone."""
    statement = select(Service).where(Service.host == host, col(Service.url).is_not(None))
    for row in (await session.exec(statement)).all():
        await set_route(session, hub, row)


async def delete_service(session: AsyncSession, hub: Hub, row: Service, *, actor: str) -> None:
    """Delete a service with its tokens, and those that people gave to it."""
    await _end_client(session, hub, row, actor=actor)
    if row.url is not None:
        row.url = None
        await set_route(session, hub, row)
    record(session, "service.deleted", actor, service_actor(row.name), at=hub.clock.now())
    await session.delete(row)
    await session.flush()


async def _end_client(session: AsyncSession, hub: Hub, row: Service, *, actor: str) -> None:
    """End every token of a service, and every one that its client was given."""
    mine = Token.service_id == row.id
    condition = mine if row.client_id is None else or_(mine, Token.client_id == row.client_id)
    statement = (
        select(Token, User).join(User, col(User.id) == col(Token.user_id), isouter=True)
    ).where(condition)
    for token, user in (await session.exec(statement)).all():
        await revoke_token(
            session, hub, token, actor=actor, owner=user or row, reason="The service is gone."
        )

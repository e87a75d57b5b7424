"""`{hub}api/shares` and `share-codes`: what owners give of their servers, and take away."""

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy import ColumnElement
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.db.models import Server
from carrel_hub.deps import HubDep
from carrel_hub.errors import InvalidRequestError, NotFoundError
from carrel_hub.late_routes import LateRouter
from carrel_hub.rbac import Resource, Scope, authorise
from carrel_hub.shares.asked import (
    SubjectDep,
    asked_server,
    find_recipient,
    grantable_names,
    list_reply,
    offered_server,
    require_to_name,
)
from carrel_hub.shares.bodies import code_number, read_code_request, read_recipient
from carrel_hub.shares.codes import delete_codes, issue_code, list_codes
from carrel_hub.shares.models import Offered, code_model, share_model
from carrel_hub.shares.scopes import shared_names
from carrel_hub.shares.store import (
    find_share,
    grant_share,
    list_shares,
    revoke_all,
    revoke_share,
)
from carrel_hub.users.accounts import find_user
from carrel_hub.users.bodies import json_body
from carrel_hub.users.paging import read_page

router = LateRouter()

_ALL = "/shares/{owner}"
_DEFAULT = "/shares/{owner}/"
_NAMED = "/shares/{owner}/{name}"
_ALL_CODES = "/share-codes/{owner}"
_DEFAULT_CODES = "/share-codes/{owner}/"
_NAMED_CODES = "/share-codes/{owner}/{name}"


@router.get(_ALL)
async def get_shares_of_owner(
    owner: str, request: Request, hub: HubDep, subject: SubjectDep
) -> JSONResponse:
    """Who may use which of somebody's servers, in pages."""
    authorise(subject, Scope.READ_SHARES, Resource(owner))
    page = read_page(request)
    async with hub.database.read() as session:
        where = [await _are_of(session, owner)]
        shares, total = await list_shares(session, where, page)
    return list_reply(request, page, [share_model(one, hub.settings) for one in shares], total)


@router.get(_DEFAULT)
@router.get(_NAMED)
async def get_shares(
    owner: str, request: Request, hub: HubDep, subject: SubjectDep, name: str = ""
) -> JSONResponse:
    """Who may use a server, in pages."""
    authorise(subject, Scope.READ_SHARES, Resource(owner, name))
    page = read_page(request)
    async with hub.database.read() as session:
        server = await asked_server(session, owner, name)
        shares, total = await list_shares(session, [col(Server.id) == server.id], page)
    return list_reply(request, page, [share_model(one, hub.settings) for one in shares], total)


@router.post(_DEFAULT)
@router.post(_NAMED)
async def post_share(
    owner: str, request: Request, hub: HubDep, subject: SubjectDep, name: str = ""
) -> JSONResponse:
    """Share a server with a user or a group, beside what they were given of it before."""
    resource = Resource(owner, name)
    authorise(subject, Scope.SHARES, resource)
    recipient, scopes = read_recipient(json_body(await request.body()))
    names = grantable_names(hub, subject, resource, scopes)
    require_to_name(subject, recipient)
    async with hub.database.write() as session:
        server = await offered_server(session, hub, subject, owner, name)
        who = await find_recipient(session, recipient)
        if who is None:
            kind = "group" if recipient.is_group else "user"
            raise InvalidRequestError(f"No such {kind}: {recipient.name[:255]}")
        at, actor = hub.clock.now(), subject.actor
        await grant_share(session, server, who, names, at=at, actor=actor)
        shared = await find_share(session, server, who)
    assert shared is not None  # noqa: S101 - it was given just now
    return JSONResponse(share_model(shared, hub.settings))


@router.patch(_DEFAULT)
@router.patch(_NAMED)
async def patch_share(
    owner: str, request: Request, hub: HubDep, subject: SubjectDep, name: str = ""
) -> JSONResponse:
    """Take away what a user or a group was given of a server, all of it or some scopes."""
    resource = Resource(owner, name)
    authorise(subject, Scope.SHARES, resource)
    recipient, scopes = read_recipient(json_body(await request.body()))
    names = None if scopes is None else shared_names(scopes, resource, hub.settings.role_book)
    async with hub.database.write() as session:
        server = await asked_server(session, owner, name)
        who = await find_recipient(session, recipient)
        if who is None:
            return JSONResponse({})
        at, actor = hub.clock.now(), subject.actor
        await revoke_share(session, server, who, names, at=at, actor=actor)
        shared = await find_share(session, server, who)
    return JSONResponse({} if shared is None else share_model(shared, hub.settings))


@router.delete(_DEFAULT, status_code=204)
@router.delete(_NAMED, status_code=204)
async def delete_shares(owner: str, hub: HubDep, subject: SubjectDep, name: str = "") -> Response:
    """Share a server with nobody any more."""
    authorise(subject, Scope.SHARES, Resource(owner, name))
    async with hub.database.write() as session:
        server = await asked_server(session, owner, name)
        await revoke_all(session, server, at=hub.clock.now(), actor=subject.actor)
    return Response(status_code=204)


@router.get(_ALL_CODES)
async def get_codes_of_owner(
    owner: str, request: Request, hub: HubDep, subject: SubjectDep
) -> JSONResponse:
    """The codes of somebody's servers, in pages, without the secrets."""
    authorise(subject, Scope.READ_SHARES, Resource(owner))
    page = read_page(request)
    async with hub.database.read() as session:
        where = [await _are_of(session, owner)]
        codes, total = await list_codes(session, hub, where, page)
    return list_reply(request, page, [code_model(one, hub.settings) for one in codes], total)


@router.get(_DEFAULT_CODES)
@router.get(_NAMED_CODES)
async def get_codes(
    owner: str, request: Request, hub: HubDep, subject: SubjectDep, name: str = ""
) -> JSONResponse:
    """The codes of a server, in pages, without the secrets."""
    authorise(subject, Scope.READ_SHARES, Resource(owner, name))
    page = read_page(request)
    async with hub.database.read() as session:
        server = await asked_server(session, owner, name)
        codes, total = await list_codes(session, hub, [col(Server.id) == server.id], page)
    return list_reply(request, page, [code_model(one, hub.settings) for one in codes], total)


@router.post(_DEFAULT_CODES)
@router.post(_NAMED_CODES)
async def post_code(
    owner: str, request: Request, hub: HubDep, subject: SubjectDep, name: str = ""
) -> JSONResponse:
    """Make a code by which whoever has it may use a server. Only this answer has it."""
    resource = Resource(owner, name)
    authorise(subject, Scope.SHARES, resource)
    lifetime, scopes = read_code_request(json_body(await request.body()))
    names = grantable_names(hub, subject, resource, scopes)
    async with hub.database.write() as session:
        server = await offered_server(session, hub, subject, owner, name)
        code, secret = await issue_code(session, hub, server, names, lifetime=lifetime, by=subject)
    offered = Offered(code, server, owner)
    return JSONResponse(code_model(offered, hub.settings, secret=secret))


@router.delete(_DEFAULT_CODES, status_code=204)
@router.delete(_NAMED_CODES, status_code=204)
async def remove_codes(
    owner: str, request: Request, hub: HubDep, subject: SubjectDep, name: str = ""
) -> Response:
    """Delete a code, or all of a server's."""
    authorise(subject, Scope.SHARES, Resource(owner, name))
    secret, code_id = (request.query_params.get(key) or None for key in ("code", "id"))
    number = None
    if secret is None and code_id is not None and (number := code_number(code_id)) is None:
        raise NotFoundError("There is no such code")
    async with hub.database.write() as session:
        server = await asked_server(session, owner, name)
        gone = await delete_codes(
            session, hub, server, actor=subject.actor, secret=secret, number=number
        )
        if not gone and (secret is not None or number is not None):
            raise NotFoundError("There is no such code")
    return Response(status_code=204)


async def _are_of(session: AsyncSession, owner: str) -> ColumnElement[bool]:
    user = await find_user(session, owner)
    if user is None:
        raise NotFoundError("")
    return col(Server.user_id) == user.id

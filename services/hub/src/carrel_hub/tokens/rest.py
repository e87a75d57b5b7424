"""`{hub}api/users/NAME/tokens`: what programs act with."""

from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.responses import JSONResponse
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.auth.browser import client_address
from carrel_hub.auth.password import prove
from carrel_hub.auth.rights import owner_rights
from carrel_hub.auth.subjects import Subject, SubjectKind, current_subject
from carrel_hub.auth.tokens import issue_token
from carrel_hub.context import Hub
from carrel_hub.db.models import Token, User
from carrel_hub.deps import HubDep
from carrel_hub.errors import (
    ForbiddenError,
    NotFoundError,
    TooManyRequestsError,
    UnavailableError,
)
from carrel_hub.late_routes import LateRouter
from carrel_hub.rbac import Resource, Scope, authorise, may
from carrel_hub.rbac.decisions import NO_CREDENTIALS
from carrel_hub.tokens.bodies import wanted_token
from carrel_hub.tokens.granting import granted_scopes, require_room
from carrel_hub.tokens.models import token_number
from carrel_hub.tokens.store import revoke_with_client, token_models
from carrel_hub.users.accounts import find_user
from carrel_hub.users.bodies import json_body

router = LateRouter()

SubjectDep = Annotated[Subject, Depends(current_subject)]

_REFUSED = "This needs a permission you do not have, or there is no such user"


@router.get("/users/{name}/tokens")
async def get_tokens(name: str, hub: HubDep, subject: SubjectDep) -> JSONResponse:
    """The tokens of a user that are good, the longest unused first."""
    authorise(subject, Scope.READ_TOKENS, Resource(name))
    async with hub.database.read() as session:
        user = await _user(session, name)
        models = await token_models(session, hub, user)
    models.sort(key=lambda model: str(model["last_activity"] or model["created"]))
    return JSONResponse({"api_tokens": models})


@router.post("/users/{name}/tokens")
async def post_token(name: str, request: Request, hub: HubDep, subject: SubjectDep) -> JSONResponse:
    """Make a token. Only this answer has its secret."""
    body = json_body(await request.body())
    if subject.is_anonymous:
        subject = await _by_password(request, hub, body)
    if not may(subject, Scope.TOKENS, Resource(name)):
        raise ForbiddenError(_REFUSED)
    async with hub.database.write() as session:
        user = await find_user(session, name)
        if user is None:
            raise ForbiddenError(_REFUSED)
        await require_room(session, hub, user)
        longest = hub.settings.token_expires_in_max_seconds
        wanted = wanted_token(body, hub.settings.role_book, longest)
        scopes = await granted_scopes(session, hub, subject, user, wanted.scopes)
        note = wanted.note
        if not note:
            note = "Requested via api"
            if not subject.is_user(user.name):
                kind = "user" if subject.user is not None else "service"
                note += f" by {kind} {subject.name}"
        new = await issue_token(
            session,
            hub,
            user,
            actor=subject.actor,
            scopes=scopes,
            note=note,
            expires_in=wanted.expires_in,
        )
        [model] = await token_models(session, hub, user, new.row.id)
    return JSONResponse({**model, "token": new.secret}, status_code=201)


@router.get("/users/{name}/tokens/{token_id}")
async def get_token(name: str, token_id: str, hub: HubDep, subject: SubjectDep) -> JSONResponse:
    """One token, without its secret."""
    authorise(subject, Scope.READ_TOKENS, Resource(name))
    async with hub.database.read() as session:
        user = await _user(session, name)
        number = token_number(token_id)
        models = [] if number is None else await token_models(session, hub, user, number)
    if not models:
        raise NotFoundError("No such token")
    return JSONResponse(models[0])


@router.delete("/users/{name}/tokens/{token_id}", status_code=204)
async def delete_token(name: str, token_id: str, hub: HubDep, subject: SubjectDep) -> Response:
    """Revoke a token; one that a server got, with all that the same server got for this user."""
    authorise(subject, Scope.TOKENS, Resource(name))
    async with hub.database.write() as session:
        user = await _user(session, name)
        row = await session.get(Token, token_number(token_id) or 0)
        if row is None or row.user_id != user.id:
            raise NotFoundError("No such token")
        await revoke_with_client(session, hub, row, user, by=subject)
    return Response(status_code=204)


async def _by_password(request: Request, hub: Hub, body: Any) -> Subject:
    """Return who gave a name and a password in the body, in place of credentials in a header.

    Raises:
        ForbiddenError: Nobody did, or it was wrong.
    """
    given = body.get("auth") if isinstance(body, dict) else None
    if not isinstance(given, dict):
        raise ForbiddenError(NO_CREDENTIALS)
    name, password = given.get("username"), given.get("password")
    if not isinstance(name, str) or not isinstance(password, str):
        raise ForbiddenError("auth must hold a username and a password")
    address = client_address(request)
    proven = await prove(hub, typed_name=name.strip(), password=password, address=address)
    if proven.status == 429:
        wait = {"Retry-After": str(proven.wait_seconds)}
        raise TooManyRequestsError(proven.message, headers=wait)
    if proven.status == 503:
        raise UnavailableError(proven.message)
    if proven.user is None:
        raise ForbiddenError(proven.message)
    async with hub.database.read() as session:
        rights = await owner_rights(session, hub, proven.user)
    return Subject(SubjectKind.PASSWORD, proven.user, scopes=rights.scopes, members=rights.members)


async def _user(session: AsyncSession, name: str) -> User:
    user = await find_user(session, name)
    if user is None:
        raise NotFoundError("")
    return user

"""`{hub}token`: what programs act with in somebody's name, made and revoked by hand."""

from datetime import timedelta
from typing import Any

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from carrel_hub.auth.browser import hub_of
from carrel_hub.auth.subjects import Subject
from carrel_hub.auth.tokens import issue_token
from carrel_hub.db.models import Token, User
from carrel_hub.errors import InvalidRequestError, NotFoundError
from carrel_hub.rbac import Resource, Scope, authorise, roles
from carrel_hub.tokens.models import token_number
from carrel_hub.tokens.store import revoke_with_client, token_models
from carrel_hub.web.page_route import (
    READING,
    PageRoute,
    checked_form,
    navigation_only,
    redirect,
    show,
    signed_in,
)

router = APIRouter(route_class=PageRoute, dependencies=[Depends(navigation_only)])

LIFETIMES = {"3600": "an hour", "86400": "a day", "604800": "a week", "2592000": "30 days"}
"""How long a new token may be good, in seconds; beside these for ever."""


@router.api_route("/token", methods=READING)
async def tokens(request: Request) -> Response:
    """Show somebody's tokens, and a form for another."""
    subject, user = await signed_in(request)
    authorise(subject, Scope.READ_TOKENS, Resource(user.name))
    return await _page(request, subject, user)


@router.post("/token")
async def make(request: Request) -> Response:
    """Make a token, and show it this once."""
    hub = hub_of(request)
    subject, user = await signed_in(request)
    fields = await checked_form(request, subject)
    authorise(subject, Scope.TOKENS, Resource(user.name))
    lifetime = fields.get("lifetime", "")
    if lifetime and lifetime not in LIFETIMES:
        raise InvalidRequestError("There is no such choice of how long a token is good.")
    async with hub.database.write() as session:
        new = await issue_token(
            session,
            hub,
            user,
            actor=subject.actor,
            scopes=hub.settings.role_book.scopes(roles.TOKEN),
            note=fields.get("note", "").strip() or "Made on the page of tokens",
            expires_in=timedelta(seconds=int(lifetime)) if lifetime else None,
        )
    return await _page(request, subject, user, secret=new.secret)


@router.post("/token/revoke/{token_id}")
async def revoke(request: Request, token_id: str) -> Response:
    """Revoke a token, by its button."""
    hub = hub_of(request)
    subject, user = await signed_in(request)
    await checked_form(request, subject)
    authorise(subject, Scope.TOKENS, Resource(user.name))
    async with hub.database.write() as session:
        row = await session.get(Token, token_number(token_id) or 0)
        if row is None or row.user_id != user.id:
            raise NotFoundError("There is no such token (any more).")
        await revoke_with_client(session, hub, row, user, by=subject)
    await hub.wakeups.notify()
    return redirect(f"{hub.settings.hub_prefix}token", status=303)


async def _page(request: Request, subject: Subject, user: User, *, secret: str = "") -> Response:
    hub = hub_of(request)
    async with hub.database.read() as session:
        models = await token_models(session, hub, user)
    own: list[dict[str, Any]] = []
    given: dict[str, dict[str, Any]] = {}
    for model in models:
        if model["oauth_client"] == "JupyterHub":
            own.append(model)
        else:  # revoking one revokes all of its client's
            given[str(model["oauth_client"])] = model
    return show(
        request,
        subject,
        "token.html",
        title="Tokens",
        own=own,
        given=list(given.values()),
        secret=secret,
        lifetimes=LIFETIMES,
    )

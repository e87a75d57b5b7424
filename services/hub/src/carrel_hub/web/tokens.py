"""`{hub}token`: what programs act with in somebody's name, made and revoked by hand."""

from dataclasses import replace
from typing import Any

from fastapi import Depends
from sqlmodel import col, select
from starlette.requests import Request
from starlette.responses import Response

from carrel_hub.auth.browser import hub_of
from carrel_hub.auth.subjects import Subject
from carrel_hub.auth.tokens import issue_token
from carrel_hub.db.models import BrowserSession, Token, User
from carrel_hub.errors import ForbiddenError, InvalidRequestError, NotFoundError
from carrel_hub.late_routes import LateRouter
from carrel_hub.rbac import Resource, Scope, authorise
from carrel_hub.tokens.granting import granted_scopes, require_room
from carrel_hub.tokens.models import token_number
from carrel_hub.tokens.store import revoke_with_client, token_models
from carrel_hub.web.page_route import (
    READING,
    PageRoute,
    checked_fields,
    checked_form,
    navigation_only,
    redirect,
    show,
    signed_in,
)
from carrel_hub.web.token_form import (
    TokenForm,
    lifetimes_of,
    offered_scopes,
    read_form,
    sent_form,
)

router = LateRouter(route_class=PageRoute, dependencies=[Depends(navigation_only)])


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
    fields = await checked_fields(request, subject)
    authorise(subject, Scope.TOKENS, Resource(user.name))
    form = sent_form(fields)
    try:
        longest = hub.settings.token_expires_in_max_seconds
        wanted = read_form(form, hub.settings.role_book, longest)
        async with hub.database.write() as session:
            await require_room(session, hub, user)
            new = await issue_token(
                session,
                hub,
                user,
                actor=subject.actor,
                scopes=await granted_scopes(session, hub, subject, user, wanted.scopes),
                note=wanted.note or "",
                expires_in=wanted.expires_in,
            )
    except (InvalidRequestError, ForbiddenError) as error:
        form = replace(form, problem=error.message)
        return await _page(request, subject, user, form=form, status=error.status_code)
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


async def _page(
    request: Request,
    subject: Subject,
    user: User,
    *,
    form: TokenForm | None = None,
    secret: str = "",
    status: int = 200,
) -> Response:
    hub = hub_of(request)
    async with hub.database.read() as session:
        models = await token_models(session, hub, user)
        stored = select(Token.id, Token.scopes).where(Token.user_id == user.id)
        scopes = {f"a{number}": texts for number, texts in (await session.exec(stored)).all()}
        mine = select(BrowserSession).where(
            BrowserSession.user_id == user.id, BrowserSession.expires_at > hub.clock.now()
        )
        found = (await session.exec(mine.order_by(col(BrowserSession.created).desc()))).all()
    here = subject.session.id if subject.session else None
    browsers = [(row.created, row.expires_at, row.id == here) for row in found]
    own: list[dict[str, Any]] = []
    given: dict[str, dict[str, Any]] = {}
    for model in models:
        if model["oauth_client"] == "JupyterHub":
            granted = scopes.get(str(model["id"]), [])
            own.append({**model, "granted": [] if Scope.INHERIT in granted else granted})
        else:  # revoking one revokes all of its client's
            before = given.get(str(model["oauth_client"]), {})
            used = max(str(one.get("last_activity") or "") for one in (model, before))
            given[str(model["oauth_client"])] = {**model, "last_activity": used}
    return show(
        request,
        subject,
        "token.html",
        status=status,
        title="Tokens",
        own=own,
        given=list(given.values()),
        secret=secret,
        form=form or TokenForm(),
        lifetimes=lifetimes_of(hub.settings.token_expires_in_max_seconds),
        browsers=browsers,
        offers=offered_scopes(subject, hub.settings.role_book.custom),
    )

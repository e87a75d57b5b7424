"""`{hub}accept-share`: taking what a share code offers, and leaving what was shared."""

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from carrel_hub.auth.browser import hub_of
from carrel_hub.db.models import User
from carrel_hub.errors import ForbiddenError, InvalidRequestError, NotFoundError
from carrel_hub.late_routes import LateRouter
from carrel_hub.rbac import Resource, Scope, authorise
from carrel_hub.rbac.words import in_words_of_one_server
from carrel_hub.shares.codes import exchange, find_code
from carrel_hub.shares.models import Offered
from carrel_hub.shares.received import leave
from carrel_hub.spawns.states import State
from carrel_hub.web.arrival import wanted_next
from carrel_hub.web.headers import NO_REFERRER
from carrel_hub.web.page_route import (
    READING,
    PageRoute,
    checked_form,
    navigation_only,
    redirect,
    show,
    signed_in,
)

router = LateRouter(route_class=PageRoute, dependencies=[Depends(navigation_only)])

NO_SUCH_CODE = (
    "This link shares nothing (any more): it was taken back, its time is over, or a part of it got"
    " lost. Ask whoever gave it to you for another one."
)
YOUR_OWN = "This link shares your own server. Give it to those who are to use it too."


@router.api_route("/accept-share", methods=READING)
async def offer(request: Request) -> Response:
    """Show what a code offers. Looking accepts nothing."""
    hub = hub_of(request)
    subject, user = await signed_in(request)
    secret = request.query_params.get("code")
    if secret is None:
        raise InvalidRequestError(NO_SUCH_CODE, headers=NO_REFERRER)
    async with hub.database.read() as db:
        offered = await find_code(db, hub, secret)
    if offered is None:
        raise NotFoundError(NO_SUCH_CODE, headers=NO_REFERRER)
    if _is_own(offered, user):
        raise ForbiddenError(YOUR_OWN, headers=NO_REFERRER)
    book = hub.settings.role_book
    return show(
        request,
        subject,
        "accept_share.html",
        headers=NO_REFERRER,
        title=f"{offered.owner} shares a server with you",
        owner=offered.owner,
        server=offered.server.display_name or offered.server.name,
        allows=[in_words_of_one_server(name, book.custom) for name in offered.code.scopes],
        runs=offered.server.state == State.READY,
        may_start=bool({Scope.SERVERS, Scope.START_SERVERS} & {*offered.code.scopes}),
        code=secret,
        next=wanted_next(request),
    )


@router.post("/accept-share")
async def accept(request: Request) -> Response:
    """Take what a code offers, and go on to the server."""
    hub = hub_of(request)
    subject, user = await signed_in(request)
    fields = await checked_form(request, subject)
    secret = fields.get("code") or request.query_params.get("code", "")
    async with hub.database.write() as db:
        offered = await find_code(db, hub, secret)
        if offered is None:
            raise InvalidRequestError(NO_SUCH_CODE, headers=NO_REFERRER)
        if _is_own(offered, user):
            raise InvalidRequestError(YOUR_OWN, headers=NO_REFERRER)
        await exchange(db, hub, offered, user)
    url = hub.settings.places.url(offered.owner, offered.server.name)
    response = redirect(wanted_next(request, fields.get("next")) or url)
    response.headers.update(NO_REFERRER)
    return response


@router.post("/leave-share/{owner}")
async def leave_default(request: Request, owner: str) -> Response:
    """Give back what somebody shared of their server."""
    return await _leave(request, owner, "")


@router.post("/leave-share/{owner}/{name}")
async def leave_named(request: Request, owner: str, name: str) -> Response:
    """Give back what somebody shared of a named server."""
    return await _leave(request, owner, name)


async def _leave(request: Request, owner: str, name: str) -> Response:
    hub = hub_of(request)
    subject, user = await signed_in(request)
    await checked_form(request, subject)
    authorise(subject, Scope.USERS_SHARES, Resource(user.name))
    async with hub.database.write() as db:
        await leave(db, hub, subject, user, owner, name)
    return redirect(f"{hub.settings.hub_prefix}home", status=303)


def _is_own(offered: Offered, user: User) -> bool:
    return offered.server.user_id == user.id

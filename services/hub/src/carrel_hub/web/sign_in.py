"""Signing in, by password or link, and signing out."""

from fastapi import Depends
from sqlmodel import col, select
from starlette.requests import Request
from starlette.responses import Response

from carrel_hub.auth.browser import client_address, cookie_jar, hub_of, is_loopback
from carrel_hub.auth.cookies import is_crowded
from carrel_hub.auth.links import link_user, use_link
from carrel_hub.auth.names import MAX_NAME
from carrel_hub.auth.password import sign_in
from carrel_hub.auth.rules import anybody_allowed
from carrel_hub.auth.sessions import begin_session, end_other_sessions, end_session
from carrel_hub.auth.subjects import ANONYMOUS, hub_signer, page_subject
from carrel_hub.db.models import User
from carrel_hub.errors import ForbiddenError
from carrel_hub.late_routes import LateRouter
from carrel_hub.spawns.service import request_stop_of
from carrel_hub.web.arrival import arrive, default_next, wanted_next
from carrel_hub.web.headers import NO_REFERRER
from carrel_hub.web.page_route import (
    READING,
    PageRoute,
    checked_form,
    is_ones_own_wish,
    keep_session_id,
    navigation_only,
    redirect,
    show,
    signed_in,
)

router = LateRouter(route_class=PageRoute, dependencies=[Depends(navigation_only)])

TWO_SIGN_INS = (
    "Your browser holds two sign-ins for this place, one of which somebody's page has put there, so"
    " neither was taken. Please sign in once more; if you land here again, clear this site's"
    " cookies."
)
STALE_FORM = "This page had grown old. Please sign in once more."
LINK_GONE = (
    "This link was used already, is older than ten minutes, or was never made. The command"
    " “carrel link” prints another one."
)
LINK_ELSEWHERE = (
    "A sign-in link works only in a browser on the machine that Carrel runs on. Open it there, or"
    " forward the port to your machine (ssh -L) and open it here."
)


@router.api_route("/login", methods=READING)
async def login_page(request: Request) -> Response:
    """Show the sign-in form, or go on with who is signed in already."""
    subject = await page_subject(request)
    if subject.user is not None:
        response: Response = redirect(
            wanted_next(request) or await default_next(hub_of(request), subject.user)
        )
        keep_session_id(request, response, subject)
        return response
    return await _form(request, username=request.query_params.get("username", "")[:MAX_NAME])


@router.post("/login")
async def login(request: Request) -> Response:
    """Sign somebody in by name and password."""
    hub = hub_of(request)
    subject = await page_subject(request)
    try:
        fields = await checked_form(request, subject)
    except ForbiddenError:
        if subject.user is not None:  # signed in meanwhile, in another tab
            onward = wanted_next(request) or await default_next(hub, subject.user)
            return redirect(onward, status=303)
        return await _form(request, status=403, message=STALE_FORM)
    username = fields.get("username", "").strip()
    began = hub.clock.monotonic()
    outcome = await sign_in(
        hub,
        hub_signer(hub),
        typed_name=username,
        password=fields.get("password", ""),
        address=client_address(request),
    )
    hub.measures.signed_in(hub.clock.monotonic() - began, success=outcome.user is not None)
    if outcome.user is None or outcome.session is None:
        return await _form(
            request,
            status=outcome.status,
            message=outcome.message,
            username=username[:MAX_NAME],
            headers={"Retry-After": str(outcome.wait_seconds)} if outcome.wait_seconds else None,
        )
    return await arrive(request, subject, outcome.user, outcome.session)


async def _form(
    request: Request,
    *,
    status: int = 200,
    message: str = "",
    username: str = "",
    headers: dict[str, str] | None = None,
) -> Response:
    hub = hub_of(request)
    settings = hub.settings.auth
    async with hub.database.read() as db:
        console = (await db.exec(select(User.id).where(col(User.console)).limit(1))).first()
    crowded = is_crowded(request)
    page = show(
        request,
        ANONYMOUS,
        "login.html",
        status=status,
        headers=headers,
        message=message or (TWO_SIGN_INS if crowded else ""),
        username=username,
        next=wanted_next(request),
        passwords=settings.checks_passwords,
        anybody=anybody_allowed(settings, console_users=console is not None),
    )
    if crowded:
        cookie_jar(request).clear_strays(page, request.url.path)
    return page


@router.api_route("/logout", methods=READING)
async def logout(request: Request) -> Response:
    """Sign the browser out, here and at every server it had opened."""
    hub = hub_of(request)
    subject = await page_subject(request)
    if request.method == "GET" and subject.user is not None and subject.session is not None:
        began = hub.clock.monotonic()
        ids: list[str] = []
        async with hub.database.write() as db:
            if hub.settings.shutdown_on_logout and is_ones_own_wish(request):
                reason = f"{subject.name} signed out."
                ids = await request_stop_of(db, hub, subject.user, reason=reason)
            await end_session(db, subject.session, subject.user, at=hub.clock.now())
        await hub.wakeups.notify(*ids)
        hub.measures.signed_out(hub.clock.monotonic() - began)
    if hub.settings.auth.checks_passwords:
        response: Response = redirect(f"{hub.settings.hub_prefix}login")
    else:  # whatever signs people in here without asking would do so again at once
        response = show(request, ANONYMOUS, "logout.html")
    cookie_jar(request).clear(response)
    return response


@router.post("/logout-elsewhere")
async def logout_elsewhere(request: Request) -> Response:
    """Sign somebody out in every other browser, and at every server those had opened."""
    hub = hub_of(request)
    subject, user = await signed_in(request)
    await checked_form(request, subject)
    async with hub.database.write() as db:
        await end_other_sessions(db, user, subject.session, at=hub.clock.now())
    await hub.wakeups.notify()
    return redirect(f"{hub.settings.hub_prefix}token", status=303)


@router.api_route("/sign-in/{secret}", methods=READING)
async def link_page(request: Request, secret: str) -> Response:
    """Ask whoever opened a link to press its button. Looking at it does not use it up."""
    hub = hub_of(request)
    subject = await page_subject(request)
    if not _may_use_links(request):
        return _link_problem(request, LINK_ELSEWHERE, status=403)
    async with hub.database.read() as db:
        user = await link_user(db, hub, secret)
    if user is None:
        return _link_problem(request, LINK_GONE, status=410)
    return show(
        request,
        subject,
        "link.html",
        headers=NO_REFERRER,
        name=user.name,
        admin=user.admin,
        action=f"{hub.settings.hub_prefix}sign-in/{secret}",
    )


@router.post("/sign-in/{secret}")
async def use_sign_in_link(request: Request, secret: str) -> Response:
    """Use a link up and sign its user in."""
    hub = hub_of(request)
    subject = await page_subject(request)
    if not _may_use_links(request):
        return _link_problem(request, LINK_ELSEWHERE, status=403)
    try:
        await checked_form(request, subject)
    except ForbiddenError:
        return _link_problem(
            request, "The page had grown old. Please open the link once more.", status=403
        )
    async with hub.database.write() as db:
        user = await use_link(db, hub, secret)
        session = await begin_session(db, hub, hub_signer(hub), user, how="link") if user else None
    if user is None or session is None:
        return _link_problem(request, LINK_GONE, status=410)
    response = await arrive(request, subject, user, session)
    response.headers.update(NO_REFERRER)
    return response


def _may_use_links(request: Request) -> bool:
    return hub_of(request).settings.auth.link_from == "anywhere" or is_loopback(request)


def _link_problem(request: Request, message: str, *, status: int) -> Response:
    return show(
        request,
        ANONYMOUS,
        "link_problem.html",
        status=status,
        headers=NO_REFERRER,
        message=message,
    )

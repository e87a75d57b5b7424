"""The page that sends a signed-in browser back to a server or a service with a code.

`router` goes below the path of the API (`/hub/api`). What comes first decides how an error is told
(RFC 6749 4.1.2.1): while it is not sure who asks, the person sees a page; afterwards the client is
told, by a redirect.
"""

from dataclasses import replace
from urllib.parse import urlsplit

from fastapi import Depends
from sqlmodel import col, or_, select
from starlette.requests import Request
from starlette.responses import Response

from carrel_hub.auth.browser import hub_of
from carrel_hub.auth.subjects import Subject
from carrel_hub.context import Hub
from carrel_hub.db.models import Token, User
from carrel_hub.errors import ForbiddenError, InvalidRequestError
from carrel_hub.late_routes import LateRouter
from carrel_hub.oauth.clients import Client, find_client
from carrel_hub.oauth.codes import issue_code
from carrel_hub.oauth.requests import (
    AuthorizeRequest,
    ClientProblemError,
    Problem,
    challenge_method,
    checked_redirect,
    find_problem,
    read_request,
    with_answer,
)
from carrel_hub.oauth.scopes import IDENTIFY, always_granted, as_asked, asked_for, grantable
from carrel_hub.rbac import expand, is_within
from carrel_hub.rbac.words import in_words
from carrel_hub.web.headers import page_headers
from carrel_hub.web.page_route import (
    READING,
    PageRoute,
    checked_fields,
    keep_session_id,
    navigation_only,
    redirect,
    request_uri,
    show,
    signed_in,
)

router = LateRouter(
    route_class=PageRoute, dependencies=[Depends(navigation_only)], include_in_schema=False
)


@router.api_route("/oauth2/authorize", methods=READING)
async def authorize(request: Request) -> Response:
    """Answer a client that wants to know who the browser's person is."""
    hub = hub_of(request)
    subject, user = await signed_in(request)
    asked, client = await _read(request, hub)
    scopes = _scopes(hub, asked, client, user)
    if isinstance(scopes, Problem):
        return _told(client, asked, scopes)
    _require_access(subject, client)
    scopes = grantable(scopes, subject.scopes, subject.members)
    if not await _is_agreed(hub, user, client, scopes):
        return _ask(request, subject, client, scopes)
    return await _grant(request, hub, subject, user, client, asked, scopes)


@router.post("/oauth2/authorize")
async def agree(request: Request) -> Response:
    """Take somebody's word that a client may know who they are, and what they let it do."""
    hub = hub_of(request)
    subject, user = await signed_in(request)
    fields = await checked_fields(request, subject)
    asked, client = await _read(request, hub)
    ticked = " ".join(value for name, value in fields if name == "scopes")
    shown = _scopes(hub, asked, client, user)
    scopes = _scopes(hub, replace(asked, scope=ticked or IDENTIFY), client, user)
    if isinstance(shown, Problem):
        return _told(client, asked, shown)
    if isinstance(scopes, Problem):
        return _told(client, asked, scopes)
    if not {*scopes} <= {*shown}:
        return _told(client, asked, Problem("invalid_scope", "more was ticked than was asked for"))
    _require_access(subject, client)
    granted = grantable(scopes, subject.scopes, subject.members)
    return await _grant(request, hub, subject, user, client, asked, granted)


def _scopes(hub: Hub, asked: AuthorizeRequest, client: Client, user: User) -> list[str] | Problem:
    needed = hub.settings.oauth_require_pkce
    problem = find_problem(asked, strict=client.is_proxys, challenge_needed=needed)
    return problem or asked_for(client, user.name, asked.scope, hub.settings.role_book)


def _told(client: Client, asked: AuthorizeRequest, problem: Problem) -> Response:
    """Send the browser back with what is wrong with the request."""
    words = {"error": problem.error, "error_description": problem.description}
    return redirect(with_answer(client.redirect_uri, asked.state, **words))


def _ask(request: Request, subject: Subject, client: Client, scopes: list[str]) -> Response:
    settings = hub_of(request).settings
    onward = urlsplit(client.redirect_uri)
    allowed = [settings.places.user_origins]
    if onward.netloc:  # browsers hold what answers a form against the page's policy
        allowed.append(f"{onward.scheme}://{onward.netloc}")
    return show(
        request,
        subject,
        "authorize.html",
        title=f"Open {client.title}?",
        what=client.title,
        owner=client.owner,
        scopes=[
            (as_asked(text, subject.name), in_words(text, settings.role_book.custom))
            for text in scopes
        ],
        always=[as_asked(text, subject.name) for text in always_granted(client, subject.name)],
        action=request_uri(request),
        headers=page_headers(settings.hub_prefix, " ".join(filter(None, allowed))),
    )


async def _read(request: Request, hub: Hub) -> tuple[AuthorizeRequest, Client]:
    """Read a request and find who sent it.

    Raises:
        InvalidRequestError: That cannot be told, or the answer would go elsewhere.
    """
    try:
        asked = read_request(request.query_params.multi_items())
        async with hub.database.read() as db:
            client = await find_client(db, hub.settings.places, asked.client_id)
        if client is None:
            raise ClientProblemError("What this request is for does not exist (any more).")
        checked_redirect(asked, client.redirect_uri)
    except ClientProblemError as error:
        raise InvalidRequestError(str(error)) from error
    return asked, client


def _require_access(subject: Subject, client: Client) -> None:
    if client.opens_to(subject):
        return
    who = f"{client.owner} or an administrator" if client.owner else "An administrator"
    raise ForbiddenError(
        f"This is {client.title}, and you have no right to open it. {who} can give it to you."
    )


async def _is_agreed(hub: Hub, user: User, client: Client, scopes: list[str]) -> bool:
    """Whether nobody need be asked: it is one's own, or trusted, or was agreed to before."""
    if client.owner == user.name or client.no_confirm:
        return True
    async with hub.database.read() as db:
        statement = select(Token.scopes).where(
            Token.user_id == user.id,
            Token.client_id == client.client_id,
            or_(col(Token.expires_at).is_(None), col(Token.expires_at) > hub.clock.now()),
        )
        granted = [text for one in (await db.exec(statement)).all() for text in one]
    wanted = [*scopes, *always_granted(client, user.name)]
    return bool(granted) and is_within(expand(wanted), expand(granted))


async def _grant(
    request: Request,
    hub: Hub,
    subject: Subject,
    user: User,
    client: Client,
    asked: AuthorizeRequest,
    scopes: list[str],
) -> Response:
    assert subject.session is not None  # noqa: S101 - pages take no tokens
    async with hub.database.write() as db:
        code = await issue_code(
            db,
            hub,
            client,
            user,
            subject.session,
            scopes=scopes,
            challenge=asked.code_challenge or "",
            challenge_method=challenge_method(asked),
        )
    response = redirect(with_answer(client.redirect_uri, asked.state, code=code))
    keep_session_id(request, response, subject)
    return response

"""The page that sends a signed-in browser back to a server with a code.

`router` goes below the path of the API (`/hub/api`). What comes first decides how an error is told
(RFC 6749 4.1.2.1): while it is not sure who asks, the person sees a page; afterwards the client is
told, by a redirect.
"""

from fastapi import APIRouter, Depends
from sqlmodel import col, or_, select
from starlette.requests import Request
from starlette.responses import Response

from carrel_hub.auth.browser import hub_of
from carrel_hub.auth.subjects import Subject
from carrel_hub.context import Hub
from carrel_hub.db.models import Token, User
from carrel_hub.errors import ForbiddenError, InvalidRequestError
from carrel_hub.oauth.clients import ServerClient, find_client
from carrel_hub.oauth.codes import issue_code
from carrel_hub.oauth.requests import (
    AuthorizeRequest,
    ClientProblemError,
    checked_redirect,
    find_problem,
    read_request,
    with_answer,
)
from carrel_hub.web.page_route import (
    READING,
    PageRoute,
    checked_form,
    keep_session_id,
    navigation_only,
    redirect,
    request_uri,
    show,
    signed_in,
)

router = APIRouter(
    route_class=PageRoute, dependencies=[Depends(navigation_only)], include_in_schema=False
)


@router.api_route("/oauth2/authorize", methods=READING)
async def authorize(request: Request) -> Response:
    """Answer a server that wants to know who the browser's person is."""
    hub = hub_of(request)
    subject, user = await signed_in(request)
    asked, client = await _read(request, hub)
    if (problem := find_problem(asked)) is not None:
        return redirect(
            with_answer(
                client.redirect_uri,
                asked.state,
                error=problem.error,
                error_description=problem.description,
            )
        )
    _require_access(subject, client)
    if not await _is_agreed(hub, user, client):
        return show(
            request,
            subject,
            "authorize.html",
            title=f"Open the server of {client.owner}?",
            owner=client.owner,
            action=request_uri(request),
        )
    return await _grant(request, hub, subject, user, client, asked, status=302)


@router.post("/oauth2/authorize")
async def agree(request: Request) -> Response:
    """Take somebody's word that another's server may know who they are."""
    hub = hub_of(request)
    subject, user = await signed_in(request)
    await checked_form(request, subject)
    asked, client = await _read(request, hub)
    if find_problem(asked) is not None:
        raise InvalidRequestError("This request is not complete. Please open the server once more.")
    _require_access(subject, client)
    return await _grant(request, hub, subject, user, client, asked, status=303)


async def _read(request: Request, hub: Hub) -> tuple[AuthorizeRequest, ServerClient]:
    """Read a request and find who sent it.

    Raises:
        InvalidRequestError: That cannot be told, or the answer would go elsewhere.
    """
    try:
        asked = read_request(request.query_params.multi_items())
        async with hub.database.read() as db:
            client = await find_client(db, hub.settings.places, asked.client_id)
        if client is None:
            raise ClientProblemError(
                "The server that this request is for does not exist (any more)."
            )
        checked_redirect(asked, client.redirect_uri)
    except ClientProblemError as error:
        raise InvalidRequestError(str(error)) from error
    return asked, client


def _require_access(subject: Subject, client: ServerClient) -> None:
    if not client.opens_to(subject):
        raise ForbiddenError(
            f"This is the server of {client.owner}, and you have no right to open it."
            f" {client.owner} or an administrator can give it to you."
        )


async def _is_agreed(hub: Hub, user: User, client: ServerClient) -> bool:
    """Whether nobody need be asked: the server is one's own, or was agreed to before."""
    if client.owner == user.name:
        return True
    async with hub.database.read() as db:
        token = await db.exec(
            select(Token.id)
            .where(
                Token.user_id == user.id,
                Token.client_id == client.client_id,
                or_(col(Token.expires_at).is_(None), col(Token.expires_at) > hub.clock.now()),
            )
            .limit(1)
        )
        return token.first() is not None


async def _grant(
    request: Request,
    hub: Hub,
    subject: Subject,
    user: User,
    client: ServerClient,
    asked: AuthorizeRequest,
    *,
    status: int,
) -> Response:
    assert subject.session is not None  # noqa: S101 - pages take no tokens
    async with hub.database.write() as db:
        code = await issue_code(
            db, hub, client, user, subject.session, challenge=asked.code_challenge or ""
        )
    response = redirect(with_answer(client.redirect_uri, asked.state, code=code), status=status)
    keep_session_id(request, response, subject)
    return response

"""What all pages have in common: errors become pages, and only a person's navigation gets one."""

from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import quote

from fastapi.exceptions import RequestValidationError
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from carrel_hub.auth import xsrf
from carrel_hub.auth.browser import cookie_jar, hub_of
from carrel_hub.auth.cookies import single_cookie
from carrel_hub.auth.sessions import restore_session_id
from carrel_hub.auth.subjects import Subject, hub_signer, page_subject, xsrf_binding
from carrel_hub.db.models import User
from carrel_hub.errors import ForbiddenError, HubError
from carrel_hub.late_routes import LateRoute
from carrel_hub.rbac import Scope, is_administrator, may
from carrel_hub.web.errors import render_error
from carrel_hub.web.forms import read_fields
from carrel_hub.web.headers import page_headers
from carrel_hub.web.render import render

READING = ["GET", "HEAD"]


class SignInNeededError(Exception):
    """Nobody is signed in, and the page is somebody's."""


class PageRoute(LateRoute):
    """A route whose errors are pages, and whose every response has the headers of a page."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def page(request: Request) -> Response:
            try:
                response = await handler(request)
            except SignInNeededError:
                response = to_sign_in(request)
            except HubError as error:
                subject: Subject | None = getattr(request.state, "page_subject", None)
                response = render_error(
                    request,
                    error.status_code,
                    error.message,
                    headers=error.headers,
                    user=subject.name if subject else None,
                )
            except RequestValidationError:
                response = render_error(request, 400, "The request is not one this page takes.")
            settings = hub_of(request).settings
            headers = page_headers(settings.hub_prefix, settings.places.user_origins)
            for name, value in headers.items():
                response.headers.setdefault(name, value)
            return response

        return page


def navigation_only(request: Request) -> None:
    """Refuse to give a page to a script: it would be one of a neighbour's, after our tokens.

    Raises:
        ForbiddenError: The browser says that this is no navigation.
    """
    if request.headers.get("sec-fetch-mode", "navigate") != "navigate":
        raise ForbiddenError("This page is for people: open it in a window of your browser.")


def is_ones_own_wish(request: Request) -> bool:
    """Whether a visit may do something: it comes from here, not from another site or as a guess."""
    if "prefetch" in request.headers.get("sec-purpose", request.headers.get("purpose", "")):
        return False
    return request.headers.get("sec-fetch-site", "none") in ("same-origin", "none")


def to_sign_in(request: Request) -> Response:
    """Send somebody to the sign-in page, to come back here afterwards."""
    if request.method not in READING:
        return render_error(request, 403, "You are signed out. Please sign in and do that again.")
    hub_prefix = hub_of(request).settings.hub_prefix
    response = redirect(f"{hub_prefix}login?next={quote(request_uri(request), safe='')}")
    jar = cookie_jar(request)
    if single_cookie(request, jar.login_cookie) is not None:
        jar.clear_login(response)  # it is nobody's any more
    return response


def redirect(location: str, *, status: int = 302) -> RedirectResponse:
    """Send the browser on, within our own address."""
    return RedirectResponse(location, status_code=status)


def request_uri(request: Request) -> str:
    """Return path and query as they were sent, still percent-encoded."""
    raw: bytes = request.scope.get("raw_path") or quote(request.scope["path"]).encode()
    query: bytes = request.scope.get("query_string", b"")
    path = raw.partition(b"?")[0].decode("latin-1")
    return f"{path}?{query.decode('latin-1')}" if query else path


async def signed_in(request: Request) -> tuple[Subject, User]:
    """Return who is signed in in this browser.

    Raises:
        SignInNeededError: Nobody is.
    """
    subject = await page_subject(request)
    if subject.user is None:
        raise SignInNeededError
    return subject, subject.user


def show(
    request: Request,
    subject: Subject,
    template: str,
    *,
    status: int = 200,
    headers: dict[str, str] | None = None,
    **values: Any,
) -> Response:
    """Render a page for somebody, with a token for its forms."""
    token = xsrf.token_for(request, hub_signer(hub_of(request)), xsrf_binding(request, subject))
    response = render(
        request,
        template,
        status=status,
        headers=headers,
        user=subject.name or None,
        more_places=_more_places(subject),
        xsrf=token.value,
        **values,
    )
    jar = cookie_jar(request)
    if subject.is_anonymous:
        jar.set_xsrf(response, token.value, max_age=xsrf.ANONYMOUS_SECONDS)
    elif token.fresh:
        jar.set_xsrf(response, token.value, max_age=None)
    keep_session_id(request, response, subject)
    return response


def _more_places(subject: Subject) -> list[tuple[str, str]]:
    """Return what the navigation has for those who look after others."""
    people = [("admin", "People")] if may(subject, Scope.ADMIN_UI) else []
    return [*people, *([("hosts", "Hosts")] if is_administrator(subject) else [])]


def keep_session_id(request: Request, response: Response, subject: Subject) -> bool:
    """Give a signed-in browser its session id again if it lost it. Return whether it had it."""
    if subject.session is None:
        return True
    hub = hub_of(request)
    return restore_session_id(
        request,
        response,
        cookie_jar(request),
        hub_signer(hub),
        subject.session,
        now=hub.clock.now(),
    )


async def checked_form(request: Request, subject: Subject) -> dict[str, str]:
    """Read a form and make sure that it is one of ours, filled in by who it was made for.

    Returns:
        The text fields; of a name that is sent twice, the first.

    Raises:
        ForbiddenError: It comes from elsewhere.
    """
    fields: dict[str, str] = {}
    for name, value in await checked_fields(request, subject):
        fields.setdefault(name, value)
    return fields


async def checked_fields(request: Request, subject: Subject) -> list[tuple[str, str]]:
    """Like `checked_form`, with every text field there is, in order.

    Raises:
        ForbiddenError: It comes from elsewhere, or from somebody who was signed out or lost rights
            before all of it was sent.
        InvalidRequestError, TooLargeError: See `read_fields`.
    """
    fields = await read_fields(request)
    request.state.page_subject = None
    now = await page_subject(request)
    if (now.user is None, now.scopes) != (subject.user is None, subject.scopes):
        raise ForbiddenError("You were signed out, or have other rights now. Please try again.")
    signer = hub_signer(hub_of(request))
    given = next((value for name, value in fields if name == xsrf.ARGUMENT), None)
    sent = xsrf.sent_token(request, given)
    xsrf.check(request, signer, xsrf_binding(request, subject), sent)
    return [(name, value) for name, value in fields if name != xsrf.ARGUMENT]

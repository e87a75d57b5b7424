"""Requests for servers that are not running, which is why the hub gets them.

JupyterLab shows its restart dialog when its calls are answered with 424, so programs get that and
people a page. Nothing here starts a server by itself.
"""

import asyncio
from contextlib import suppress
from urllib.parse import parse_qsl, quote, unquote, urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from carrel_hub.auth.browser import hub_of
from carrel_hub.auth.subjects import Subject, page_subject, subject_at_once, subject_by_token
from carrel_hub.context import Hub
from carrel_hub.errors import HubError, NotFoundError
from carrel_hub.late_routes import LateRouter
from carrel_hub.rbac import Scope
from carrel_hub.rbac.decisions import NOT_FOUND
from carrel_hub.spawns.states import State
from carrel_hub.web.page_route import (
    READING,
    PageRoute,
    redirect,
    request_uri,
    show,
    to_sign_in,
)
from carrel_hub.web.server_view import view
from carrel_hub.web.servers import Place, find_place

router = LateRouter(route_class=PageRoute)

MOST_REDIRECTS = 4
"""A proxy that still sends a running server's visitors here after so many is out of order."""

METHODS = [*READING, "POST", "PUT", "PATCH", "DELETE"]


class ServerUnreachableError(HubError):
    """A server runs and its visitors still arrive at the hub."""

    status_code = 500
    code = "server_unreachable"


@router.api_route("/user/{path:path}", methods=METHODS)
async def not_running(request: Request) -> Response:
    """Answer for a server that is not there."""
    return await answer(request, below=hub_of(request).settings.hub_prefix)


async def answer(request: Request, *, below: str) -> Response:
    """Answer for a server that is not there.

    Args:
        below: The prefix that `user/NAME/...` stands behind in this request.
    """
    hub = hub_of(request)
    uri = request_uri(request).removeprefix(below)
    path, _, query = uri.partition("?")
    _, name, *rest = [*path.split("/"), ""]
    owner = unquote(name)
    # What a slash follows may be a server's name; `rest` ends in a piece that is not in the path.
    server = unquote(rest[0]) if len(rest) > 2 else ""
    try:
        subject = await _subject(request)
        if subject.is_anonymous:
            if request.method in READING:
                return to_sign_in(request)
            return api_reply(hub, owner)
        place = await _place(hub, subject, owner, server)
    except HubError as error:
        if wants_json(request, rest):
            return json_reply(error.status_code, error.message)
        raise
    shown = view(place.row, now=hub.clock.now())
    if shown.state == State.READY and request.method in READING:
        return await _back_to_server(hub, path, query)
    if wants_json(request, rest) or request.method not in READING:
        return api_reply(hub, owner, place.name)
    # The way back from signing in cannot be walked a second time.
    inside = rest[1:] if place.name else rest
    goal = place.url(hub) if inside[:1] == ["oauth_callback"] else _public(hub, uri)
    next_query = urlencode({"next": goal})
    if shown.changing or shown.state == State.FAILED:
        return redirect(f"{place.page(hub, 'spawn-pending')}?{next_query}", status=303)
    return show(
        request,
        subject,
        "stopped.html",
        status=424,
        title="The server is not running",
        whose="" if place.owner.name == subject.name else place.owner.name,
        unknown=shown.state == State.UNKNOWN,
        start_url=f"{place.page(hub, 'spawn')}?{next_query}",
    )


def wants_json(request: Request, segments: list[str]) -> bool:
    """Whether a program asks: it says so, or it calls an API."""
    if "api" in segments:
        return True
    accept = request.headers.get("accept", "")
    return "application/json" in accept and "text/html" not in accept


def json_reply(status: int, message: str) -> JSONResponse:
    """Answer a program."""
    return JSONResponse({"status": status, "message": message}, status_code=status)


def api_reply(hub: Hub, owner: str, name: str = "") -> JSONResponse:
    """Say to a program that the server is not running, and where it is started."""
    settings = hub.settings
    start = f"{settings.places.hub_origin}{settings.hub_prefix}spawn/{quote(owner, safe='@~')}"
    start += f"/{quote(name, safe='@~')}" if name else ""
    message = f"The server of {owner} is not running. Start it at {start}"
    return JSONResponse({"message": message}, status_code=424)


async def _subject(request: Request) -> Subject:
    """Return who asks: here a token counts as well as being signed in."""
    if request.method in READING:
        return await subject_by_token(request) or await page_subject(request)
    return await subject_at_once(request)


async def _place(hub: Hub, subject: Subject, owner: str, server: str) -> Place:
    """Return the named server if there is one of that name, else the default one."""
    if server and hub.settings.allow_named_servers:
        with suppress(NotFoundError):
            return await find_place(hub, subject, Scope.ACCESS_SERVERS, owner, server)
    try:
        return await find_place(hub, subject, Scope.ACCESS_SERVERS, owner)
    except HubError as error:
        # What is not yours and what is not there look the same.
        raise NotFoundError(NOT_FOUND) from error


async def _back_to_server(hub: Hub, path: str, query: str) -> Response:
    """Send a visitor to a server that runs after all, slower each time it does not work."""
    fields = [(key, value) for key, value in parse_qsl(query, keep_blank_values=True)]
    counts = [value for key, value in fields if key == "redirects"]
    count = int(counts[0]) if counts and counts[0].isdecimal() and len(counts[0]) < 3 else 0
    if count >= MOST_REDIRECTS:
        raise ServerUnreachableError(
            "The server runs, but the proxy does not bring its visitors to it. Please try again in"
            " a minute; if it stays so, tell the administrator."
        )
    if count:
        await asyncio.sleep(min(2**count, 10))
    fields = [(key, value) for key, value in fields if key != "redirects"]
    fields.append(("redirects", str(count + 1)))
    return redirect(_public(hub, f"{path}?{urlencode(fields)}"))


def _public(hub: Hub, uri: str) -> str:
    """Return where browsers find `user/NAME/...`."""
    return hub.settings.places.located(f"{hub.settings.base_url}{uri}")

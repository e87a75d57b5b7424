"""What the hub says on users' own hosts, where it has no pages and nobody is signed in to it.

A proxy brings here whatever no running server of that host covers. People are sent to the hub's
own host, programs are told that the server is not running.
"""

from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from carrel_hub.auth.credentials import authorization_token
from carrel_hub.context import Hub
from carrel_hub.web.page_route import READING, redirect, request_uri
from carrel_hub.web.stopped_servers import api_reply, json_reply, wants_json

NOTHING_HERE = "There is nothing at this address. The hub's pages and its API are at {origin}."


def create_users_hosts(hub: Hub) -> ASGIApp:
    """Return what answers on every host but the hub's own."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await reply(hub, Request(scope, receive))(scope, receive, send)

    return answer


def reply(hub: Hub, request: Request) -> Response:
    """Return the answer to a request on a user's host."""
    settings = hub.settings
    path, _, _ = request_uri(request).partition("?")
    inside = path.removeprefix(settings.base_url)
    segments = inside.split("/")
    is_server = path.startswith(settings.base_url) and segments[0] == "user" and len(segments) > 1
    if _is_navigation(request, segments):
        return redirect(settings.places.hub_origin + _hub_path(hub, request_uri(request)))
    if is_server:
        return api_reply(hub, unquote(segments[1]))
    return json_reply(404, NOTHING_HERE.format(origin=settings.places.hub_origin))


def _is_navigation(request: Request, segments: list[str]) -> bool:
    mode = request.headers.get("sec-fetch-mode")
    if request.method not in READING or mode not in (None, "navigate"):
        return False
    if mode == "navigate":
        return True
    by_token = authorization_token(request.headers.get("authorization")) is not None
    return not by_token and not wants_json(request, segments)


def _hub_path(hub: Hub, uri: str) -> str:
    """Return the hub's path for an address on a user's host."""
    base, prefix = hub.settings.base_url, hub.settings.hub_prefix
    if uri.startswith(prefix) or not uri.startswith(base):
        return uri if uri.startswith(prefix) else prefix
    return prefix + uri.removeprefix(base)

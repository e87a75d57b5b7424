"""Requests that the proxy brings to the hub though they are not below the hub's own path.

Nobody is known here: the hub's cookies are sent to its own path only. So people are sent there.
"""

from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from carrel_hub.auth.browser import hub_of
from carrel_hub.auth.credentials import authorization_token
from carrel_hub.errors import NotAllowedError, NotFoundError
from carrel_hub.late_routes import LateRouter
from carrel_hub.web.page_route import READING, PageRoute, redirect, request_uri
from carrel_hub.web.stopped_servers import METHODS, answer, api_reply

router = LateRouter(route_class=PageRoute)

NOTHING_HERE = "The address leads nowhere. It may have a typing error, or what was here is gone."


@router.api_route("/{path:path}", methods=METHODS)
async def outside(request: Request) -> Response:
    """Send whoever reads to the hub; answer whoever changes something at once."""
    hub = hub_of(request)
    base, prefix = hub.settings.base_url, hub.settings.hub_prefix
    uri = request_uri(request)
    path, _, query = uri.partition("?")
    if f"{path}/" == prefix:
        return redirect(f"{prefix}{'?' + query if query else ''}", status=301)
    if path.startswith(prefix) and _takes_other_methods(request):
        raise NotAllowedError("")
    if path.startswith(prefix) or not path.startswith(base):
        raise NotFoundError(NOTHING_HERE)
    segments = path.removeprefix(base).split("/")
    if segments[0] in ("user", "services") and len(segments) == 2 and segments[1]:
        return redirect(f"{path}/{'?' + query if query else ''}", status=301)
    if segments[0] == "user" and len(segments) > 2 and request.method not in READING:
        if authorization_token(request.headers.get("authorization")) is not None:
            return await answer(request, below=base)
        return api_reply(hub, unquote(segments[1]))
    if request.method not in READING:
        raise NotAllowedError("")
    return redirect(prefix + uri.removeprefix(base))


def _takes_other_methods(request: Request) -> bool:
    """Whether there is something at this address, but not for this method."""
    return any(route.matches(request.scope)[0] is Match.PARTIAL for route in request.app.routes)

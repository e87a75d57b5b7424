"""`{hub}error/503` and so on: bodies for the errors of a proxy, which asks for them here.

The status is always 200; whoever asks answers with the one it asked about (contract 1.3).
"""

from starlette.requests import Request
from starlette.responses import Response

from carrel_hub.errors import NotFoundError
from carrel_hub.late_routes import LateRouter
from carrel_hub.web.errors import render_error
from carrel_hub.web.page_route import READING, PageRoute

router = LateRouter(route_class=PageRoute)


@router.api_route("/error/{code}", methods=READING)
async def proxy_error(request: Request, code: str) -> Response:
    """Show what a status means."""
    if not (code.isascii() and code.isdigit() and len(code) == 3):
        raise NotFoundError("There is no such error.")
    return render_error(request, 200, code=int(code))

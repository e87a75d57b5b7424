"""Style, icon and scripts. Their addresses change with their content, so they are kept for long."""

import mimetypes

from starlette.requests import Request
from starlette.responses import FileResponse, Response

from carrel_hub.errors import NotFoundError
from carrel_hub.late_routes import LateRouter
from carrel_hub.web.page_route import READING, PageRoute
from carrel_hub.web.render import STATIC, static_version

router = LateRouter(route_class=PageRoute)

FOR_EVER = "public, max-age=31536000, immutable"


@router.api_route("/static/{name}", methods=READING)
async def static_file(request: Request, name: str) -> Response:
    """Serve one of our own files."""
    if name not in _names():
        raise NotFoundError("There is no such file.")
    kept = request.query_params.get("v") == static_version(name)
    return FileResponse(
        STATIC / name,
        media_type=_media_type(name),
        headers={"Cache-Control": FOR_EVER if kept else "no-cache"},
    )


@router.api_route("/logo", methods=READING)
async def logo(request: Request) -> Response:
    """Serve the logo at the address JupyterHub's clients know."""
    return FileResponse(
        STATIC / "icon.svg", media_type="image/svg+xml", headers={"Cache-Control": "no-cache"}
    )


def _names() -> frozenset[str]:
    return frozenset(path.name for path in STATIC.iterdir() if path.is_file())


def _media_type(name: str) -> str:
    # Not the machine's table: a script that is sent as text/plain would not run.
    known = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
    suffix = name[name.rfind(".") :]
    return known.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"

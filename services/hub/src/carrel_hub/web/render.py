"""Templates into responses. Values are escaped wherever they stand; there is no way around it."""

import functools
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import HTMLResponse

from carrel_hub.auth.browser import hub_of
from carrel_hub.web.headers import page_headers

if TYPE_CHECKING:
    from jinja2 import Environment

HERE = Path(__file__).parent
STATIC = HERE / "static"


@functools.cache
def environment() -> "Environment":
    """Return the templates, loaded when first used."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )


@functools.cache
def static_version(name: str) -> str:
    """Return a short hash of a static file, so that browsers may keep it for ever."""
    return sha256((STATIC / name).read_bytes()).hexdigest()[:12]


def render(
    request: Request,
    template: str,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    **values: Any,
) -> HTMLResponse:
    """Render a page.

    Args:
        template: A file in `templates`.
        headers: Added to those of every page.
        values: What the template shows; `user` (the name of who is signed in), `xsrf`,
            `more_places` (paths and words for the navigation), `refresh` and
            `refresh_without_scripts` (seconds) are known to the layout.
    """
    settings = hub_of(request).settings

    def static(name: str) -> str:
        return f"{settings.hub_prefix}static/{name}?v={static_version(name)}"

    known: dict[str, Any] = {
        "user": None,
        "xsrf": "",
        "more_places": [],
        "refresh": None,
        "refresh_without_scripts": None,
        **values,
        "here": request.url.path,
        "hub": settings.hub_prefix,
        "base": settings.base_url,
        "static": static,
    }
    return HTMLResponse(
        environment().get_template(template).render(known),
        status_code=status,
        headers={
            **page_headers(settings.hub_prefix, settings.places.user_origins),
            **(headers or {}),
        },
    )

"""Lists in pages, as JupyterHub's clients ask for them. Pure."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request

from carrel_hub.errors import InvalidRequestError

OPT_IN = "application/jupyterhub-pagination+json"
"""In `Accept`, on its own: the caller wants to know what comes after."""

DEFAULT_LIMIT = 50
MAX_LIMIT = 200
_MAX_OFFSET = 2**53


@dataclass(frozen=True, slots=True)
class Page:
    """What part of a list is asked for.

    Attributes:
        described: The answer is to say how long the list is, and where its next page is.
    """

    offset: int
    limit: int
    described: bool


def read_page(request: Request) -> Page:
    """Return the page that a request asks for.

    Raises:
        InvalidRequestError: A limit or an offset is no number.
    """
    accepted = ",".join(request.headers.getlist("accept")).split(",")
    described = any(element.strip().lower() == OPT_IN for element in accepted)
    limit = _number(request, "limit", DEFAULT_LIMIT if described else MAX_LIMIT)
    offset = _number(request, "offset", 0)
    return Page(min(offset, _MAX_OFFSET), min(max(limit, 1), MAX_LIMIT), described)


def page_reply(request: Request, page: Page, items: Any, total: int) -> Any:
    """Return what to answer: the items alone, or with where they stand in the list.

    Args:
        items: Those of this page.
        total: How many there are in all pages.
    """
    if not page.described:
        return items
    following = page.offset + page.limit
    next_page = None
    if following < total:
        next_page = {
            "offset": following,
            "limit": page.limit,
            "url": _url(request, following, page.limit),
        }
    return {
        "items": items,
        "_pagination": {
            "offset": page.offset,
            "limit": page.limit,
            "total": total,
            "next": next_page,
        },
    }


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    try:
        return abs(int(text))
    except ValueError as error:
        raise InvalidRequestError(f"{name} must be a whole number") from error


def _url(request: Request, offset: int, limit: int) -> str:
    """The address the caller used, so that it can be reached from there."""
    query = [
        (name, value)
        for name, value in parse_qsl(request.url.query, keep_blank_values=True)
        if name not in ("offset", "limit")
    ]
    query += [("offset", str(offset)), ("limit", str(limit))]
    return str(request.url.replace(query=urlencode(query), fragment=""))

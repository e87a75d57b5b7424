"""The page that says what went wrong."""

from collections.abc import Mapping
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import HTMLResponse

from carrel_hub.web.render import render

_TITLES = {
    400: "That did not work",
    403: "You may not go there",
    404: "There is nothing here",
    405: "That is not possible here",
    413: "That is too much",
    424: "The server is not running",
    429: "Too many attempts",
    500: "Something went wrong",
    503: "Not available right now",
}

_WORDS = {
    404: "The address leads nowhere. It may have a typing error, or what was here is gone.",
    405: "This address does not take that kind of request.",
    503: "What is at this address does not answer right now. If it is a server, your home page says"
    " how it is, and starts it again.",
    500: "The hub could not answer. The administrator finds the reason in the hub's log.",
}


def render_error(
    request: Request,
    status: int,
    message: str | None = None,
    *,
    title: str | None = None,
    headers: Mapping[str, str] | None = None,
    user: str | None = None,
    code: int | None = None,
) -> HTMLResponse:
    """Return an error as a page.

    Args:
        status: The HTTP status.
        code: The status that the page is about, where that is another.
        message: What is wrong and what to do, in plain words; nothing technical, nothing secret.
        title: The heading; without it, one that fits the status.
        headers: Added to those of every page.
        user: The name of who is signed in, if that is known already.
    """
    code = status if code is None else code
    if title is None:
        title = _TITLES.get(code) or _phrase(code)
    return render(
        request,
        "error.html",
        status=status,
        headers=headers,
        user=user,
        code=code,
        title=title,
        message=message or _WORDS.get(code) or _phrase(code),
    )


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"Error {status}"

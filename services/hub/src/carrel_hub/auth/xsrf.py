"""Tokens against requests that another page makes the browser send.

A page of ours carries a token in its forms and sets the same as the cookie `_xsrf`; a request that
changes something must bring both. The token is signed for the session it was made for (or, before
signing in, for the browser's address and kind), so neither another person's token nor a cookie
that a neighbour put there is worth anything.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass

from starlette.requests import Request

from carrel_hub.auth.browser import client_address
from carrel_hub.auth.cookies import XSRF_COOKIE, cookie_values, session_id
from carrel_hub.auth.signing import Signer
from carrel_hub.errors import ForbiddenError

ARGUMENT = "_xsrf"
HEADERS = ("x-xsrftoken", "x-csrftoken")
ANONYMOUS_SECONDS = 3600
"""How long a browser that is not signed in keeps its token."""

_PURPOSE = "xsrf"
READING = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True, slots=True)
class XsrfToken:
    """A token for a form, and whether the browser must be given it as a cookie too."""

    value: str
    fresh: bool


def binding(request: Request, session_secret_hash: str | None) -> str:
    """Return what tokens of this browser are made for."""
    if session_secret_hash is not None:
        return f"session {session_secret_hash}"
    agent = hashlib.sha256(request.headers.get("user-agent", "").encode()).hexdigest()
    return f"anonymous {client_address(request)} {agent} {session_id(request) or ''}"


def token_for(request: Request, signer: Signer, bound_to: str) -> XsrfToken:
    """Return the browser's own token when it has a good one, else a new one.

    Keeping it means that a form in another tab stays good.
    """
    for value in cookie_values(request, XSRF_COOKIE):
        if _is_genuine(value, signer, bound_to):
            return XsrfToken(value, fresh=False)
    nonce = secrets.token_urlsafe(12)
    return XsrfToken(f"{nonce}.{signer.mac(_PURPOSE, nonce, bound_to)}", fresh=True)


def sent_token(request: Request, form_value: str | None = None) -> str | None:
    """Return the token that came with a request: in its form, its query or a header."""
    if form_value:
        return form_value
    if value := request.query_params.get(ARGUMENT):
        return value
    for name in HEADERS:
        if value := request.headers.get(name):
            return value
    return None


def check(request: Request, signer: Signer, bound_to: str, sent: str | None) -> None:
    """Refuse a request that does not come from a page of ours.

    Raises:
        ForbiddenError: Saying whether the token is missing or wrong.
    """
    if not sent:
        raise ForbiddenError(f"'{ARGUMENT}' argument missing from {request.method}")
    cookies = [
        value
        for value in cookie_values(request, XSRF_COOKIE)
        if _is_genuine(value, signer, bound_to)
    ]
    if not any(hmac.compare_digest(value.encode(), sent.encode()) for value in cookies):
        raise ForbiddenError(f"XSRF cookie does not match {request.method} argument")
    if request.headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        raise ForbiddenError("XSRF: this request comes from a page of another site")


def api_call_needs_token(
    method: str, fetch_mode: str | None, fetch_site: str | None, fetch_dest: str | None
) -> bool:
    """Whether a call to the API that a cookie vouches for must bring a token.

    Reading by scripts of a page needs one as well, so that a neighbour's page gets nothing; a
    navigation, an image, or a client that is no browser does not. What a script fetches is for
    nothing in the page (`empty`), and within one origin it can read that in the mode of images too.
    """
    if method in ("HEAD", "OPTIONS"):
        return False
    if method in READING:
        if fetch_mode in (None, "navigate", "websocket"):
            return False
        embedded = fetch_dest != "empty"  # browsers that say the mode say this too
        return not (fetch_mode == "no-cors" and fetch_site == "same-origin" and embedded)
    return True


def _is_genuine(value: str, signer: Signer, bound_to: str) -> bool:
    nonce, dot, signature = value.partition(".")
    return bool(
        dot
        and nonce
        and hmac.compare_digest(signature.encode(), signer.mac(_PURPOSE, nonce, bound_to).encode())
    )

"""What a service's fields may hold, the same in the settings and over the REST API. Pure."""

import re
from collections.abc import Sequence
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, StringConstraints

from carrel_hub.rbac.scopes import is_scope

SECRET_LENGTHS = range(8, 65)
_NAME = re.compile(r"[^\s/%](?:[^/%\x00-\x1f\x7f]{0,253}[^\s/%])?")


def check_name(value: str) -> str:
    """Return a name that a service may have (contract 8.1).

    Raises:
        ValueError: It is not one: empty, too long, with a slash, `%`, or space around it.
    """
    if not _NAME.fullmatch(value) or not value.strip(".") or not value.isprintable():
        raise ValueError(
            "a service's name has at most 255 characters, no slash, no %, no space around it, and"
            " is not only dots"
        )
    return value


def check_secret(value: str) -> str:
    """Return a token that a service may have.

    Raises:
        ValueError: It is too short, too long, or holds what no header can.
    """
    if len(value) not in SECRET_LENGTHS or not (value.isascii() and value.isprintable()):
        raise ValueError("api_token must be 8 to 64 characters of printable ASCII")
    if " " in value:
        raise ValueError("api_token must not hold a space")
    return value


def check_url(value: str) -> str:
    """Return where a service may listen: an origin, such as `http://127.0.0.1:9000`.

    Raises:
        ValueError: It is no such address.
    """
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"url: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError("url must be an address such as http://127.0.0.1:9000")
    if parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("url names scheme, host and port alone")
    return value.removesuffix("/")


def check_client(
    *,
    url: str | None,
    client_id: str | None,
    redirect_uri: str | None,
    scopes: Sequence[str],
) -> None:
    """Refuse an OAuth client that is not complete.

    Raises:
        ValueError: It has no address for answers, or asks for what does not exist.
    """
    if client_id is not None and url is None and redirect_uri is None:
        raise ValueError("a client without a url needs oauth_redirect_uri")
    if redirect_uri is not None:
        parts = urlsplit(redirect_uri)
        absolute = parts.scheme in ("http", "https") and bool(parts.netloc)
        relative = redirect_uri.startswith("/") and not redirect_uri.startswith("//")
        if not (absolute or relative) or parts.fragment or "\\" in redirect_uri:
            raise ValueError("oauth_redirect_uri must be an http(s) address, or a path here")
    for text in scopes:
        if not is_scope(text):
            raise ValueError(f"there is no scope {text!r}")


ServiceName = Annotated[str, AfterValidator(check_name)]
ServiceUrl = Annotated[str, AfterValidator(check_url)]
ClientId = Annotated[str, StringConstraints(pattern=r"^service-[!-~]{1,247}$")]
"""An OAuth client id of a service; servers' begin otherwise, so that none can be both."""

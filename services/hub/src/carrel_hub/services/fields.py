"""What a service's fields may hold, the same in the settings and over the REST API. Pure."""

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, StringConstraints

from carrel_shared.addresses import TcpAddress, check_upstream_host, parse_address

SECRET_LENGTHS = range(8, 65)
_AUTHORITY = re.compile(r"[A-Za-z0-9.-]+(?::[0-9]+)?|\[[0-9a-fA-F:.]+\](?::[0-9]+)?")
_NAME = re.compile(r"[^\s/%\\](?:[^/%\\\x00-\x1f\x7f]{0,253}[^\s/%\\])?")


def check_name(value: str) -> str:
    """Return a name that a service may have (contract 8.1).

    Raises:
        ValueError: It is not one: empty, too long, with a slash of any kind, `%`, or space around.
    """
    if not _NAME.fullmatch(value) or not value.strip(".") or not value.isprintable():
        raise ValueError(
            "a service's name has at most 255 characters, no slash, no backslash, no %, no space"
            " around it, and is not only dots"
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
        ValueError: It is no such address, or none that proxies take.
    """
    service_target(value)
    return value.removesuffix("/")


def service_target(url: str) -> str:
    """Return a service's address as a proxy's target. One that proxies refuse would stop them all.

    Raises:
        ValueError: There is none.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"url: {error}") from error
    if parts.scheme != "http" or not host or port == 0 or not url.isascii():
        raise ValueError("url must be an address such as http://127.0.0.1:9000")
    if parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("url names scheme, host and port alone")
    address = TcpAddress(host, port or 80)
    parse_address(f"http://{address}")
    check_upstream_host(address)
    return f"http://{address}"


def check_client(
    *,
    url: str | None,
    client_id: str | None,
    redirect_uri: str | None,
) -> None:
    """Refuse an OAuth client that is not complete.

    Raises:
        ValueError: It has no address for answers, or none that can be one.
    """
    if client_id is not None and url is None and redirect_uri is None:
        raise ValueError("a client without a url needs oauth_redirect_uri")
    if redirect_uri is not None:
        parts = urlsplit(redirect_uri)
        absolute = parts.scheme in ("http", "https") and bool(_AUTHORITY.fullmatch(parts.netloc))
        relative = redirect_uri.startswith("/") and not redirect_uri.startswith("//")
        if (
            not (absolute or relative)
            or not redirect_uri.isprintable()
            or parts.fragment
            or "\\" in redirect_uri
        ):
            raise ValueError("oauth_redirect_uri must be an http(s) address, or a path here")


ServiceName = Annotated[str, AfterValidator(check_name)]
ServiceUrl = Annotated[str, AfterValidator(check_url)]
CLIENT_ID = r"service-[!-~]{1,247}"
ClientId = Annotated[str, StringConstraints(pattern=f"^{CLIENT_ID}$")]
"""An OAuth client id of a service; servers' begin otherwise, so that none can be both."""

"""What is known of the browser behind a request: address, scheme, host.

The listener that proxies use has put what they forwarded into the ASGI scope, and nobody else's
word is taken for it; so only the scope is read here.
"""

import ipaddress
from urllib.parse import urlsplit

from starlette.requests import Request

from carrel_hub.auth.cookies import CookieJar
from carrel_hub.context import Hub

UNKNOWN_ADDRESS = "unknown"


def hub_of(request: Request) -> Hub:
    """Return the hub's parts."""
    hub = request.app.state.hub
    assert isinstance(hub, Hub)  # noqa: S101 - set where the application is made
    return hub


def client_address(request: Request) -> str:
    """Return the client's address in its one usual spelling, for counting and comparing."""
    raw = request.client.host if request.client else ""
    try:
        address = ipaddress.ip_address(raw)
    except ValueError:
        return UNKNOWN_ADDRESS
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


def is_loopback(request: Request) -> bool:
    """Whether the browser runs on this very machine. An unknown address does not."""
    address = client_address(request)
    return address != UNKNOWN_ADDRESS and ipaddress.ip_address(address).is_loopback


def public_origin(request: Request) -> tuple[str, str]:
    """Return scheme and host (with port) as the person's browser knows them."""
    configured = hub_of(request).settings.public_url
    if configured:
        parts = urlsplit(configured)
        return parts.scheme, parts.netloc
    scheme = "https" if request.scope.get("scheme") in ("https", "wss") else "http"
    return scheme, request.headers.get("host", "")


def cookie_jar(request: Request) -> CookieJar:
    """Return what sets cookies for this browser."""
    settings = hub_of(request).settings
    return CookieJar(
        base_url=settings.base_url,
        hub_prefix=settings.hub_prefix,
        secure=public_origin(request)[0] == "https",
        domain=settings.places.hub_host or None,
        own_host=settings.places.are_safe,
    )

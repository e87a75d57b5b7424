"""What the hub may say of a route: refused before it is in force, or never.

A table has tens of thousands of routes and most are plain, so a whole one is looked at together:
all prefixes as one text, all sockets, all secrets. Only when something is not plain is each route
looked at by itself, which decides and says what is wrong.
"""

import re
from collections.abc import Callable, Collection, Sequence

from carrel_proxy.core.paths import prefix_segments
from carrel_proxy.errors import BadTargetError
from carrel_shared.addresses import Address, AddressError, TcpAddress, parse_target
from carrel_shared.wire.routes import Route

Check = Callable[[Route], None]
"""Raises `BadTargetError` for a route that this proxy is not to have."""

_COOKIE_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]*")

_UNIX = "unix:/"
_UNIX_LENGTHS = range(len(_UNIX) + 1, len(_UNIX) + 107)
_PLAIN_TARGET = re.compile(r"unix:/[\x21-\x7e]{1,106}")
"""Most targets by far; what is read in no other way need not be read until it is used."""
_VISIBLE = bytes(range(0x21, 0x7F))
_PRINTABLE = b" " + _VISIBLE
_PLAIN = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!$&'()*+,-.:=@_~"
"""What a prefix is made of, but for slashes and escapes."""


def check_nothing(_route: Route) -> None:
    """Accept every route."""


def check_routes(routes: Sequence[Route], check: Check) -> None:
    """Refuse what could not be used.

    Raises:
        BadTargetError: For the first route with which something is wrong.
    """
    if check is not check_nothing or not _all_plain(routes):
        for route in routes:
            check_route(route, check)


def check_route(route: Route, check: Check = check_nothing) -> None:
    """Refuse a route that could not be used.

    Raises:
        BadTargetError: With what is wrong.
    """
    check(route)
    # What is no ASCII is refused like anything else that is not percent-encoded.
    prefix_segments(route.prefix.encode("ascii", "replace"))
    for target in route.targets:
        if route.host_id is not None:
            read_relay(target)
        elif _PLAIN_TARGET.fullmatch(target) is None:
            read_target(target)
    secret = route.access.secret if route.access is not None else ""
    if secret and not (secret.isascii() and secret.isprintable()):
        raise BadTargetError(f"{route.prefix!r}: the secret does not fit into a header field")
    if route.stock_client_id:
        _check_stock(route)


def _check_stock(route: Route) -> None:
    if not route.server:
        raise BadTargetError(f"{route.prefix!r}: stock_client_id is for servers only")
    if route.access is not None:
        raise BadTargetError(f"{route.prefix!r}: the proxy signs people in, or the server does")
    if not _COOKIE_NAME.fullmatch(route.stock_client_id):
        raise BadTargetError(f"{route.prefix!r}: stock_client_id is no name of a cookie")


def _all_plain(routes: Sequence[Route]) -> bool:
    """Whether every one of these is fine, as far as that can be seen at a glance."""
    secrets = [route.access.secret for route in routes if route.access is not None]
    targets = [target for route in routes for target in route.targets]
    sockets = [text for text in targets if text.startswith(_UNIX)]
    others = [text for text in targets if not text.startswith(_UNIX)]
    return (
        not any(route.stock_client_id or route.host_id for route in routes)
        and _is_made_of(_PRINTABLE, "".join(secrets))
        and _are_plain([route.prefix for route in routes])
        and _is_made_of(_VISIBLE, "".join(sockets))
        and all(map(_UNIX_LENGTHS.__contains__, map(len, sockets)))
        and _can_be_read(set(others))
    )


def _are_plain(prefixes: Sequence[str]) -> bool:
    """Whether these are prefixes without escapes and dot segments."""
    lines = "\n".join(["", *prefixes, ""])
    count = len(prefixes)
    return (
        _is_made_of(_PLAIN + b"/\n", lines)
        and lines.count("\n/") == lines.count("/\n") == count
        and lines.count("\n") == count + 1
        and not any(odd in lines for odd in ("//", "/./", "/../"))
    )


def _is_made_of(characters: bytes, text: str) -> bool:
    return text.isascii() and not text.encode("ascii").translate(None, characters)


def _can_be_read(targets: Collection[str]) -> bool:
    try:
        for target in targets:
            read_target(target)
    except BadTargetError:
        return False
    return True


def read_target(text: str) -> Address:
    """Return a target's address.

    Raises:
        BadTargetError: If it is not `unix:/path` or `http://host:port`, or leads to an address
            that belongs to no server of ours.
    """
    try:
        return parse_target(text)
    except AddressError as error:
        raise BadTargetError(str(error)) from error


def read_relay(text: str) -> TcpAddress:
    """Return the address of another host's relay.

    Raises:
        BadTargetError: If it is not `https://host:port`, or no host's.
    """
    scheme, _, rest = text.partition("://")
    address = read_target(f"http://{rest}") if scheme == "https" else None
    if not isinstance(address, TcpAddress):
        raise BadTargetError(f"{text!r}: a target on another host is https://host:port")
    return address

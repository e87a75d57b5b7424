"""Targets as the REST API has them: a URL with, perhaps, a path and a query of its own. Pure."""

import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from carrel_proxy.engine.route_checks import read_target as read_address
from carrel_proxy.errors import BadTargetError
from carrel_shared.addresses import Address, AddressError, UnixAddress, parse_address

_URL = re.compile(
    r"(https?|http\+unix|unix\+http)://([^/?#]+)([^?#]*)(?:\?([^#]*))?", re.IGNORECASE
)
_SAFE = re.compile(r"[\x21-\x7e]*")


@dataclass(frozen=True, slots=True)
class Target:
    """Where a route leads.

    Attributes:
        host: What `Host` says if it is to name the target.
        path: The target's own path, without its last slash.
        alone: The same with it, as it was written: what is asked for when nothing follows.
        query: The target's own query, without the question mark.
        https: It is spoken to over TLS.
    """

    address: Address
    host: bytes
    path: bytes
    alone: bytes
    query: bytes
    https: bool


def read_target(text: str) -> Target:
    """Read a target.

    Raises:
        BadTargetError: If it is no URL of a known kind, carries a password, or leads to an address
            that belongs to no server.
    """
    match = _URL.fullmatch(text)
    if match is None:
        raise BadTargetError("a target is http://, https:// or http+unix://, then where")
    scheme, authority, path, query = match.groups()
    if "@" in authority:
        raise BadTargetError("a target carries no user name and password")
    if not _SAFE.fullmatch(path) or not _SAFE.fullmatch(query or ""):
        raise BadTargetError("a target's path and query are percent-encoded")
    https = scheme.lower() == "https"
    return Target(
        address=_address(scheme.lower(), authority),
        host=b"localhost" if "unix" in scheme.lower() else authority.encode("ascii", "replace"),
        path=path.removesuffix("/").encode("ascii"),
        alone=path.encode("ascii"),
        query=(query or "").encode("ascii"),
        https=https,
    )


def http_url(text: str) -> tuple[str, str | None]:
    """Return a target's URL as HTTP clients take it, and the unix socket that it is asked on.

    Raises:
        BadTargetError: As `read_target` does.
    """
    target = read_target(text)
    if isinstance(target.address, UnixAddress):
        return f"http://localhost{target.path.decode('ascii')}", target.address.path
    return text, None


def _address(scheme: str, authority: str) -> Address:
    if "unix" in scheme:
        try:
            address = parse_address("unix:" + unquote_to_bytes(authority).decode("utf-8"))
        except (AddressError, UnicodeDecodeError) as error:
            raise BadTargetError(f"{authority!r} is no socket's path: {error}") from error
        if not isinstance(address, UnixAddress):
            raise BadTargetError(f"{authority!r} is no socket's path")
        return address
    authority = authority.removesuffix(":")
    bare = authority.rpartition("]")[2]
    port = "" if ":" in bare else ":443" if scheme == "https" else ":80"
    return read_address(f"http://{authority}{port}")

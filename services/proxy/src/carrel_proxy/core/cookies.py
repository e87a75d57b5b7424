"""Cookies between neighbours on one domain (RFC 6265). Pure.

To a browser all servers of an installation are one origin, so a page of one can set cookies that
are sent to another, and a request does not say where a cookie came from. What can be kept apart is
kept apart: reserved names are never forwarded to a user's server nor accepted from one, and what a
server sets stays below its prefix.

JupyterHub's own servers and services sign people in themselves, with cookies of reserved names.
Each of them is left the cookies of its own OAuth client, and nobody else's.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

SESSION_COOKIE = b"jupyterhub-session-id"

_RESERVED = (b"jupyterhub-", b"carrel-")
_BROWSER_PREFIXES = (b"__host-", b"__secure-")
# Also what some readers of cookies strip from names, and others do not.
_BLANK = b' \t\x0b\x0c\x85\xa0"'
_MAYBE_RESERVED = re.compile(rb"jupyterhub-|carrel-", re.IGNORECASE)
_STATE = re.compile(rb"-oauth-state(?:-[A-Za-z]{8})?")


@dataclass(frozen=True, slots=True)
class Fence:
    """What a user's server is kept behind.

    Attributes:
        prefix: What its cookies and service workers are limited to, a slash at both ends.
        client_id: The OAuth client of a server that signs people in itself, as JupyterHub's stock
            one does; empty for one that leaves this to the proxy.
        own_host: The server has a host of its own, all of which is its; the prefix is then `/`.
    """

    prefix: bytes
    client_id: bytes = b""
    own_host: bool = False

    def is_own(self, name: bytes) -> bool:
        """Whether a cookie holds the token, or a sign-in under way, of this server's client.

        Not by the beginning of the name: `jupyterhub-user-a-b` is another client than that of `a`.
        On a host of its own it may be a `__Host-` cookie, as JupyterHub's are there.
        """
        if self.own_host:
            name = name.removeprefix(b"__Host-")
        rest = name.removeprefix(self.client_id)
        if not self.client_id or len(rest) == len(name):
            return False
        return not rest or _STATE.fullmatch(rest) is not None

    def session(self, session_id: bytes) -> bytes:
        """Return what stands for a browser's session here.

        HubAuth needs that it is the same until the browser signs in anew; what it really is lets
        whoever knows it redeem codes.
        """
        return hashlib.sha256(session_id + b":" + self.client_id).hexdigest().encode("ascii")


def is_reserved(name: bytes) -> bool:
    """Whether a cookie's name belongs to hub or proxy, in any spelling that a reader may take."""
    name = name.strip(_BLANK).lower()
    while name.startswith(_BROWSER_PREFIXES):
        name = name.split(b"-", 1)[1]
    return name.startswith(_RESERVED)


def fenced_cookies(values: Iterable[bytes], fence: Fence) -> bytes | None:
    """Return the `Cookie` field for a user's server; None when nothing is left."""
    value = b"; ".join(values)
    if not _MAYBE_RESERVED.search(value):
        return value or None
    kept = [
        pair.strip(b" \t")
        for pair in value.split(b";")
        if pair.strip(b" \t") and not is_reserved(pair.partition(b"=")[0])
    ]
    if fence.client_id:
        kept += _left_to_stock(value, fence)
    return b"; ".join(kept) or None


def _left_to_stock(value: bytes, fence: Fence) -> list[bytes]:
    """Return the reserved cookies that a stock server is left; two of one name are none."""
    found: dict[bytes, bytes | None] = {}
    for pair in value.split(b";"):
        name, equals, content = pair.partition(b"=")
        name = name.strip(b" \t")
        if equals and is_reserved(name) and (name == SESSION_COOKIE or fence.is_own(name)):
            found[name] = None if name in found else content.strip(b" \t")
    session = found.get(SESSION_COOKIE)
    if session is not None:
        found[SESSION_COOKIE] = fence.session(session) if session else None
    return [name + b"=" + content for name, content in found.items() if content is not None]


def single_cookie(values: Iterable[bytes], name: bytes) -> bytes | None:
    """Return the value of a cookie of a reserved name. Two of them count as none.

    A neighbour can add a second one with a longer path, and which one is ours cannot be told.
    """
    found: bytes | None = None
    for value in values:
        if name not in value:
            continue
        for pair in value.split(b";"):
            key, equals, content = pair.partition(b"=")
            if equals and key.strip(b" \t") == name:
                if found is not None:
                    return None
                found = content.strip(b" \t")
    return found


def count_cookies(values: Iterable[bytes], name: bytes) -> int:
    """Return how many cookies of a name were sent."""
    return sum(
        pair.partition(b"=")[0].strip(b" \t") == name
        for value in values
        for pair in value.split(b";")
    )


def confine_set_cookie(value: bytes, fence: Fence) -> bytes | None:
    """Return a server's `Set-Cookie` kept below its prefix, or None if it may not be set at all.

    `Domain` goes; a path outside the prefix becomes the prefix, so that applications that set `/`
    can still sign people in; reserved names, and cookies without a name, which a browser would send
    as if their value were a name, are dropped. Those of a stock server's own client are not.
    """
    pair, *attributes = value.split(b";")
    name, equals, _ = pair.partition(b"=")
    if not equals or not name.strip(_BLANK):
        return None
    if is_reserved(name) and not fence.is_own(name.strip(b" \t")):
        return None
    kept = [pair.strip(b" \t")]
    path: bytes | None = None
    for attribute in attributes:
        key, _, content = attribute.partition(b"=")
        key = key.strip(b" \t").lower()
        if key == b"path":
            path = content.strip(b" \t")
        elif key and key != b"domain":
            kept.append(attribute.strip(b" \t"))
    if path is not None:
        inside = path == fence.prefix[:-1] or path.startswith(fence.prefix)
        kept.append(b"Path=" + (path if inside else fence.prefix))
    return b"; ".join(kept)


def refused_cookies(values: Iterable[bytes], fence: Fence) -> list[str]:
    """Return the names of the cookies that a server tried to set and may not, fit for a log."""
    return [
        ascii(value.partition(b";")[0].partition(b"=")[0][:64].decode("latin-1"))
        for value in values
        if confine_set_cookie(value, fence) is None
    ]


def set_cookie(
    name: str, value: str, *, path: str, max_age: int, secure: bool, same_site: str = "Lax"
) -> bytes:
    """Return the `Set-Cookie` value of a cookie of ours; `max_age` in seconds, 0 removes it."""
    parts = [f"{name}={value}", f"Path={path}", f"Max-Age={max_age}", "HttpOnly"]
    parts.append(f"SameSite={same_site}")
    if secure:
        parts.append("Secure")
    return "; ".join(parts).encode("ascii")

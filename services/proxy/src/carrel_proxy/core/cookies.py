"""Cookies between neighbours on one domain (RFC 6265). Pure.

To a browser all servers of an installation are one origin, so a page of one can set cookies that
are sent to another, and a request does not say where a cookie came from. What can be kept apart is
kept apart: reserved names are never forwarded to a user's server nor accepted from one, and what a
server sets stays below its prefix.
"""

import re
from collections.abc import Iterable

_RESERVED = (b"jupyterhub-", b"carrel-")
_BROWSER_PREFIXES = (b"__host-", b"__secure-")
# Also what some readers of cookies strip from names, and others do not.
_BLANK = b' \t\x0b\x0c\x85\xa0"'
_MAYBE_RESERVED = re.compile(rb"jupyterhub-|carrel-", re.IGNORECASE)


def is_reserved(name: bytes) -> bool:
    """Whether a cookie's name belongs to hub or proxy, in any spelling that a reader may take."""
    name = name.strip(_BLANK).lower()
    while name.startswith(_BROWSER_PREFIXES):
        name = name.split(b"-", 1)[1]
    return name.startswith(_RESERVED)


def without_reserved(values: Iterable[bytes]) -> bytes | None:
    """Return the `Cookie` field for a user's server; None when nothing is left."""
    value = b"; ".join(values)
    if not _MAYBE_RESERVED.search(value):
        return value or None
    kept = [
        pair.strip(b" \t")
        for pair in value.split(b";")
        if pair.strip(b" \t") and not is_reserved(pair.partition(b"=")[0])
    ]
    return b"; ".join(kept) or None


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


def confine_set_cookie(value: bytes, prefix: bytes) -> bytes | None:
    """Return a server's `Set-Cookie` kept below its prefix, or None if it may not be set at all.

    `Domain` goes; a path outside the prefix becomes the prefix, so that applications that set `/`
    can still sign people in; reserved names, and cookies without a name, which a browser would send
    as if their value were a name, are dropped.
    """
    pair, *attributes = value.split(b";")
    name, equals, _ = pair.partition(b"=")
    if not equals or not name.strip(_BLANK) or is_reserved(name):
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
        inside = path == prefix[:-1] or path.startswith(prefix)
        kept.append(b"Path=" + (path if inside else prefix))
    return b"; ".join(kept)


def set_cookie(
    name: str, value: str, *, path: str, max_age: int, secure: bool, same_site: str = "Lax"
) -> bytes:
    """Return the `Set-Cookie` value of a cookie of ours; `max_age` in seconds, 0 removes it."""
    parts = [f"{name}={value}", f"Path={path}", f"Max-Age={max_age}", "HttpOnly"]
    parts.append(f"SameSite={same_site}")
    if secure:
        parts.append("Secure")
    return "; ".join(parts).encode("ascii")

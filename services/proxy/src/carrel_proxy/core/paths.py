"""Paths, segment by segment. Decides what a path may mean; never rewrites one.

Routes compare decoded segments, and the bytes that were received are forwarded. So `%2F` never
crosses a segment, `%7E` and `~` are the same user, and what applications do below their prefix
(`%2F`, `//`) is left to them, except climbing out of it.
"""

import re
from urllib.parse import quote, unquote_to_bytes

from carrel_proxy.errors import BadPathError, BadTargetError

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_DOT = re.compile(rb"%2[eE]")
_SEPARATORS = re.compile(rb"[/\\]")
_NEVER_IN_KEYS = re.compile(rb"[/\\\x00]")
_SAFE_PREFIX = re.compile(rb"/(?:[A-Za-z0-9!$&'()*+,\-.:=@_~%]+/)*")
_PLAIN_PREFIX = re.compile(rb"/(?:[A-Za-z0-9!$&'()*+,\-:=@_~]+/)+")


def decoded(segment: bytes) -> bytes:
    """Return a segment, percent-decoded once.

    Raises:
        BadPathError: If its escapes are malformed or no text.
    """
    if b"%" not in segment:
        return segment
    if _BAD_ESCAPE.search(segment):
        raise BadPathError("the path has a malformed percent-escape")
    name = _ESCAPE.sub(lambda match: bytes((int(match.group(1), 16),)), segment)
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        raise BadPathError("the path is not UTF-8") from None
    return name


def pieces(name: bytes) -> list[bytes]:
    """Return the segments that somebody finds in a decoded one who decodes before splitting, takes
    backslashes for slashes, and drops what is empty or a single dot."""
    return [piece for piece in _SEPARATORS.split(name) if piece not in (b"", b".")]


def climbs(segments: list[bytes]) -> bool:
    """Whether dot segments lead above where these segments start, however they are spelled.

    Backslashes count as slashes, because there are applications that take them for that, and empty
    segments count for nothing, because there are some that drop them.
    """
    depth = 0
    for segment in _SEPARATORS.split(_DOT.sub(b".", b"/".join(segments))):
        if segment == b"..":
            depth -= 1
            if depth < 0:
                return True
        elif segment not in (b"", b"."):
            depth += 1
    return False


def prefix_segments(prefix: bytes) -> list[bytes]:
    """Return the decoded segments of a route's prefix.

    Raises:
        BadTargetError: If it is not percent-encoded with a slash at both ends.
    """
    if _PLAIN_PREFIX.fullmatch(prefix):  # as most are, and there are thousands
        return prefix[1:-1].split(b"/")
    if not _SAFE_PREFIX.fullmatch(prefix):
        raise BadTargetError(f"{prefix!r}: a prefix is percent-encoded, a slash at both ends")
    if prefix == b"/":
        return []
    try:
        segments = [decoded(segment) for segment in prefix[1:-1].split(b"/")]
    except BadPathError as error:
        raise BadTargetError(f"{prefix!r}: {error.reason}") from error
    for segment in segments:
        if segment in (b"", b".", b"..") or _NEVER_IN_KEYS.search(segment):
            raise BadTargetError(f"{prefix!r}: it has an empty, a dot or an ambiguous segment")
    return segments


def checked_segments(prefix: str) -> list[bytes]:
    """Return the decoded segments of a prefix that `prefix_segments` has accepted before."""
    raw = prefix.encode("ascii")
    if b"%" in raw or raw == b"/":
        return prefix_segments(raw)
    return raw[1:-1].split(b"/")


def one_spelling(prefix: str) -> str:
    """Return a prefix spelled so that two that mean the same are the same text."""
    return quote(unquote_to_bytes(prefix), safe="/!$&'()*+,-.:=@_~")


def below(path: bytes, depth: int) -> bytes | None:
    """Return what follows the first `depth` segments, as received; None if no slash ends them."""
    parts = path.split(b"/", depth + 1)
    return parts[-1] if len(parts) == depth + 2 else None

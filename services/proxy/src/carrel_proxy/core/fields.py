"""Sections of header fields: what is in them, and what of them goes on. Pure.

A section is what stands between a start line and the empty line, well-formed already: CRLF before
each field and none after the last.
"""

import re
from collections.abc import Collection, Iterable
from functools import lru_cache

HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"content-length",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
"""Fields that end at this hop (RFC 9110 7.6.1), and those that say where the message ends."""

Fields = dict[bytes, list[bytes]]


def fields_pattern(names: Iterable[bytes], *patterns: bytes) -> re.Pattern[bytes]:
    """Return what finds fields by their lower-case names in a section in lower case.

    Args:
        patterns: More names, as regular expressions.
    """
    by_first: dict[bytes, list[bytes]] = {}
    for name in sorted(names):
        by_first.setdefault(name[:1], []).append(re.escape(name[1:]))
    groups = [b"%b(?:%b)" % (first, b"|".join(rests)) for first, rests in by_first.items()]
    return re.compile(rb"\r\n(" + b"|".join([*groups, *patterns]) + rb"):([^\r]*+)")


HOP_BY_HOP_FIELDS = fields_pattern(HOP_BY_HOP, rb"x-carrel-[^:]*+")
"""Finds what no response's field section passes on as it came."""


def split_fields(section: bytes, wanted: re.Pattern[bytes]) -> tuple[bytes, Fields]:
    """Set the fields apart that need thought.

    Args:
        wanted: Finds them, as `fields_pattern` returns it.

    Returns:
        The section without them, and their values by lower-case name.
    """
    special: Fields = {}
    kept, position = [], 0
    for match in wanted.finditer(section.lower()):
        start, end = match.span()
        if start > position:
            kept.append(section[position:start])
        position = end
        value = section[match.start(2) : end].strip(b" \t")
        name = match[1]
        if name in special:
            special[name].append(value)
        else:
            special[name] = [value]
    if not position:
        return section, special
    kept.append(section[position:])
    return b"".join(kept), special


def field_values(section: bytes, name: bytes) -> list[bytes]:
    """Return the values of the fields of a section that have this lower-case name."""
    values, position = [], 0
    lowered, wanted = section.lower(), b"\r\n" + name + b":"
    while (start := lowered.find(wanted, position)) >= 0:
        start += len(wanted)
        position = section.find(b"\r", start)
        if position < 0:
            position = len(section)
        values.append(section[start:position].strip(b" \t"))
    return values


def without_fields(section: bytes, names: Collection[bytes]) -> bytes:
    """Return a section without the fields of these lower-case names."""
    lines = section.split(b"\r\n")[1:]
    return b"".join(
        b"\r\n" + line for line in lines if line[: line.index(b":")].lower() not in names
    )


def connection_tokens(special: Fields) -> frozenset[bytes]:
    """Return what the `Connection` fields list, in lower case."""
    values = special.get(b"connection")
    return _tokens(b",".join(values)) if values else _NO_TOKENS


_NO_TOKENS: frozenset[bytes] = frozenset()


@lru_cache(maxsize=256)
def _tokens(value: bytes) -> frozenset[bytes]:
    return frozenset(token.strip(b" \t").lower() for token in value.split(b","))

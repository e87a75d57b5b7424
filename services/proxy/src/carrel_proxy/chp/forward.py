"""What a request becomes on its way to a target, and a redirect on its way back. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from carrel_proxy.chp.targets import Target
from carrel_proxy.core.fields import without_fields
from carrel_proxy.core.head import RequestHead
from carrel_proxy.core.headers import framing_fields, passing_fields
from carrel_proxy.core.paths import below

# What is set apart from others' requests because it claims what only a proxy can know.
_CLAIMS = (
    b"forwarded",
    b"x-http-method-override",
    b"x-original-host",
    b"x-original-url",
    b"x-real-ip",
    b"x-rewrite-url",
    b"x-scheme",
)
_FORWARDED = (b"x-forwarded-for", b"x-forwarded-port", b"x-forwarded-proto", b"x-forwarded-host")
_REDIRECTS = frozenset((201, 301, 302, 307, 308))
_LOCATION = re.compile(rb"(https?)://([^/?#]+)(.*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Rules:
    """How requests are forwarded, as the command line says.

    Attributes:
        custom: Fields to set, names in the case to send.
    """

    x_forward: bool = True
    prepend_path: bool = True
    include_prefix: bool = True
    change_origin: bool = False
    auto_rewrite: bool = False
    protocol_rewrite: bytes | None = None
    custom: tuple[tuple[bytes, bytes], ...] = ()


class Sender(Protocol):
    """Who sent a request: a client's connection.

    Attributes:
        peer: Its address.
        trusted: It is a proxy whose word about its own clients counts.
        https: It is TLS.
    """

    peer: bytes
    trusted: bool
    https: bool


def request_for(
    head: RequestHead, target: Target, depth: int, sender: Sender, rules: Rules, *, websocket: bool
) -> bytes:
    """Return the head to send.

    Args:
        depth: How many segments of the path the route covers.
    """
    host = target.host if rules.change_origin else head.host
    key = ("sent", host, websocket)
    fields = head.derived.get(key)
    if fields is None:
        fields = head.derived[key] = _fields(head, host, sender, rules, websocket=websocket)
    path = _target(head.target, target, depth, rules)
    return b"%b %b HTTP/1.1%b\r\n\r\n" % (head.method, path, fields)


def _fields(
    head: RequestHead, host: bytes, sender: Sender, rules: Rules, *, websocket: bool
) -> bytes:
    """Return all fields to send, CRLF before each."""
    overridden = {name.lower() for name, _ in rules.custom}
    special = {name: values for name, values in head.special.items() if name not in overridden}
    custom = [field for field in rules.custom if field[0].lower() != b"host"]
    if b"host" in overridden:
        host = next(value for name, value in rules.custom if name.lower() == b"host")
    fields = [(b"Host", host)]
    if b"cookie" in special:
        fields.append((b"Cookie", b"; ".join(special[b"cookie"])))
    fields += [(b"Authorization", value) for value in special.get(b"authorization", ())]
    for name, values in special.items():
        if _passes(name, trusted=sender.trusted):
            fields += [(name, value) for value in values]
    if rules.x_forward:
        fields += _forwarded(head, sender, overridden, websocket=websocket)
    elif sender.trusted:
        fields += [(name, value) for name in _FORWARDED for value in special.get(name, ())]
    fields += custom
    plain = passing_fields(head)
    if overridden:
        plain = without_fields(plain, overridden)
    return b"".join(
        (
            *(b"\r\n%b: %b" % field for field in fields[:1]),
            plain,
            *(b"\r\n%b: %b" % field for field in fields[1:]),
            framing_fields(head, websocket=websocket),
        )
    )


def _passes(name: bytes, *, trusted: bool) -> bool:
    """Whether a field that was set apart goes on: from a trusted proxy, or if it claims nothing."""
    plain_name = name.replace(b"_", b"-")
    if plain_name in _FORWARDED or plain_name.startswith((b"x-carrel-", b"x-forwarded-")):
        is_own = name in _FORWARDED or name.startswith(b"x-carrel-")
        return trusted and name == plain_name and not is_own
    if plain_name in _CLAIMS:
        return trusted
    return name == b"x-request-id" or (b"_" in name and plain_name not in _DECISIVE)


# Spelled with an underscore some servers take these for the real ones.
_DECISIVE = frozenset(
    (b"connection", b"content-length", b"host", b"transfer-encoding", b"authorization", b"cookie")
)


def _forwarded(
    head: RequestHead, sender: Sender, overridden: set[bytes], *, websocket: bool
) -> list[tuple[bytes, bytes]]:
    said: Mapping[bytes, list[bytes]] = head.special if sender.trusted else {}
    _, colon, port = head.host.rpartition(b":")
    if not colon or not port.isdigit():
        port = b"443" if sender.https else b"80"
    scheme = b"ws" if websocket else b"http"
    own = {
        b"x-forwarded-for": sender.peer,
        b"x-forwarded-port": port,
        b"x-forwarded-proto": scheme + b"s" if sender.https else scheme,
    }
    fields = [
        (name, b",".join([*filter(None, said.get(name, ())), value]))
        for name, value in own.items()
        if name not in overridden
    ]
    hosts = [*filter(None, said.get(b"x-forwarded-host", ()))]
    if not (hosts or websocket):
        hosts = [head.host]
    if hosts and b"x-forwarded-host" not in overridden:
        fields.append((b"x-forwarded-host", hosts[0]))
    return fields


def _target(received: bytes, target: Target, depth: int, rules: Rules) -> bytes:
    if rules.include_prefix and not (rules.prepend_path and (target.path or target.query)):
        return received
    path, mark, query = received.partition(b"?")
    if not rules.include_prefix:
        rest = below(path, depth)
        path = b"" if rest is None or path == b"/" else b"/" + rest
    if rules.prepend_path:
        path = target.path + path if path else target.alone
        if target.query:
            mark, query = b"?", target.query + (b"&" + query if query else b"")
    return (path or b"/") + mark + query


def rewritten_location(
    value: bytes, status: int, host: bytes, target: Target, rules: Rules
) -> bytes:
    """Return what `Location` says to the client.

    Args:
        host: The `Host` that the client asked.
    """
    if status not in _REDIRECTS or not (rules.auto_rewrite or rules.protocol_rewrite):
        return value
    match = _LOCATION.fullmatch(value)
    if match is None or match.group(2).lower() != target.host.lower():
        return value
    scheme, authority, rest = match.groups()
    if rules.auto_rewrite:
        authority = host
    return b"%b://%b%b" % (rules.protocol_rewrite or scheme, authority, rest)

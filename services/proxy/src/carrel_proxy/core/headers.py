"""The heads that are written: built from what was read, never passed on whole.

What ends at this hop stays here, what a client claims about itself is replaced by what is known,
and the body's length is said once more, in our own words.
"""

import re
from dataclasses import dataclass, replace

from carrel_proxy.core.cookies import Fence, confine_set_cookie, fenced_cookies
from carrel_proxy.core.fields import (
    HOP_BY_HOP,
    HOP_BY_HOP_FIELDS,
    connection_tokens,
    fields_pattern,
    without_fields,
)
from carrel_proxy.core.head import RequestHead, ResponseHead, parse_response
from carrel_proxy.core.paths import climbs

_CONNECTION_OPTIONS = frozenset((b"close", b"keep-alive", b"upgrade"))

# A client may declare fields to be for this hop only, but not those that decide what the next hop
# thinks of the request.
_NEVER_NOMINATED = frozenset(
    (
        b"accept",
        b"authorization",
        b"cache-control",
        b"content-encoding",
        b"content-type",
        b"cookie",
        b"host",
        b"origin",
        b"referer",
        b"sec-websocket-key",
        b"user-agent",
        b"x-xsrftoken",
    )
)

_ORIGIN_WIDE = frozenset(
    (
        b"accept-ch",
        b"alt-svc",
        b"clear-site-data",
        b"nel",
        b"origin-agent-cluster",
        b"public-key-pins",
        b"report-to",
        b"reporting-endpoints",
        b"sec-session-registration",
        b"secure-session-registration",
        b"set-login",
        b"strict-transport-security",
        b"use-as-dictionary",
        b"x-accel-redirect",
        b"x-sendfile",
    )
)
"""What one server must not say for all who share its origin, or to a web server before us."""

SERVER_FIELDS = fields_pattern(
    HOP_BY_HOP | _ORIGIN_WIDE | {b"set-cookie", b"service-worker-allowed"}, rb"x-carrel-[^:]*+"
)
"""Finds the fields to set apart in the responses of a user's server."""

# These reach no further than their own host. What is left out reaches others below one domain
# (`Clear-Site-Data` empties their cookies), outlasts the host, or leads around the proxy.
_HOST_WIDE = frozenset(
    (
        *(b"accept-ch", b"nel", b"origin-agent-cluster", b"report-to", b"reporting-endpoints"),
        b"use-as-dictionary",
    )
)

OWN_HOST_FIELDS = fields_pattern(
    HOP_BY_HOP | (_ORIGIN_WIDE - _HOST_WIDE) | {b"set-cookie", b"service-worker-allowed"},
    rb"x-carrel-[^:]*+",
)
"""The same for a server on a host of its own."""


def response_fields(fence: Fence | None) -> re.Pattern[bytes]:
    """Return what finds the fields to set apart in the responses of a route."""
    if fence is None:
        return HOP_BY_HOP_FIELDS
    return OWN_HOST_FIELDS if fence.own_host else SERVER_FIELDS


_ROUTES_OWN = frozenset((b"set-cookie", b"service-worker-allowed"))
"""What each route passes on in its own way."""
_MOST_HEADS = 256
_LONGEST_HEAD = 2048


class RecentHeads:
    """Response heads that were read, by their bytes.

    A busy target repeats its heads for as long as `Date` stays the same, and so do many servers of
    one kind. What a head means depends on its bytes and on the fields that are set apart; so routes
    that have these in common share what was read.
    """

    __slots__ = ("_known", "_wanted")

    def __init__(self, wanted: re.Pattern[bytes]) -> None:
        self._wanted = wanted
        self._known: dict[bytes, ResponseHead] = {}

    def read(self, data: bytes) -> ResponseHead:
        """Return a head that is read.

        Raises:
            BadResponseError: See `parse_response`.
        """
        known = self._known
        head = known.get(data)
        if head is None:
            head = parse_response(data, self._wanted)
            if len(data) <= _LONGEST_HEAD and _ROUTES_OWN.isdisjoint(head.special):
                if len(known) >= _MOST_HEADS:
                    known.clear()
                head = known[data] = replace(head, openings={})
        return head


_HEADS = {
    pattern: RecentHeads(pattern) for pattern in (HOP_BY_HOP_FIELDS, SERVER_FIELDS, OWN_HOST_FIELDS)
}


def heads_for(fence: Fence | None) -> RecentHeads:
    """Return what reads the response heads of a route."""
    return _HEADS[response_fields(fence)]


_PLAIN_PATH = re.compile(rb"[\x21-\x7e]+")


@dataclass(slots=True)
class Onward:
    """What the next hop is told beside what the client said.

    Attributes:
        target: The path and query to ask for.
        fields: Lines with their CRLF: forwarded, request id, identity.
        fence: What a user's server is kept behind; None for everybody else.
        drop_authorization: Whether the `Authorization` field was ours and ends here.
    """

    target: bytes
    fields: bytes
    fence: Fence | None = None
    drop_authorization: bool = False


def request_bytes(head: RequestHead, onward: Onward, *, websocket: bool = False) -> bytes:
    """Return the head to send to a target."""
    kept = kept_fields(head, onward, websocket=websocket)
    return b"%b %b HTTP/1.1%b\r\n%b\r\n" % (head.method, onward.target, kept, onward.fields)


def kept_fields(head: RequestHead, onward: Onward, *, websocket: bool = False) -> bytes:
    """Return what goes on of a request's fields, CRLF before each. The same fields cost nothing."""
    fence = onward.fence
    client_id = None if fence is None else fence.client_id
    key = ("kept", client_id, onward.drop_authorization, websocket)
    kept: bytes | None = head.derived.get(key)
    if kept is None:
        kept = head.remember(key, _kept_fields(head, onward, websocket=websocket))
    return kept


def _kept_fields(head: RequestHead, onward: Onward, *, websocket: bool) -> bytes:
    """Return what goes on of a request's fields, CRLF before each."""
    special = head.special
    lines = [b"\r\nHost: " + head.host, passing_fields(head)]
    if b"cookie" in special:
        cookies = special[b"cookie"]
        fence = onward.fence
        value = b"; ".join(cookies) if fence is None else fenced_cookies(cookies, fence)
        if value is not None:
            lines.append(b"\r\nCookie: " + value)
    if b"authorization" in special and not onward.drop_authorization:
        lines += [b"\r\nAuthorization: " + value for value in special[b"authorization"]]
    lines.append(framing_fields(head, websocket=websocket))
    return b"".join(lines)


def passing_fields(head: RequestHead) -> bytes:
    """Return the fields that need no thought, without those that were for this hop only."""
    nominated = connection_tokens(head.special) - _CONNECTION_OPTIONS
    if nominated:
        return without_fields(head.plain, nominated - _NEVER_NOMINATED)
    return head.plain


def framing_fields(head: RequestHead, *, websocket: bool) -> bytes:
    """Return the fields that frame a request for the next hop, CRLF before each."""
    fields = b""
    if head.chunked:
        fields = b"\r\nTransfer-Encoding: chunked"
    elif head.length is not None:
        fields = b"\r\nContent-Length: %d" % head.length
    if head.expects_continue:
        fields += b"\r\nExpect: 100-continue"
    if websocket:
        key = head.special[b"sec-websocket-key"][0]
        fields += b"\r\nSec-WebSocket-Key: %b\r\nConnection: Upgrade\r\nUpgrade: websocket" % key
    return fields


def response_bytes(head: ResponseHead, framing: bytes, fence: Fence | None) -> bytes:
    """Return the head to send to the client.

    Args:
        framing: Field lines with their CRLF that say where the body ends and whether the
            connection does.
        fence: What limits the say of a user's server; None for everybody else.
    """
    special = head.special
    plain = head.plain
    if b"connection" in special and (nominated := connection_tokens(special) - _CONNECTION_OPTIONS):
        plain = without_fields(plain, nominated)
    if fence is not None and special:
        plain += _confined(head, fence)
    return b"HTTP/1.1 %d %b%b\r\n%b\r\n" % (head.status, head.reason, plain, framing)


def _confined(head: ResponseHead, fence: Fence) -> bytes:
    lines = b""
    for value in head.special.get(b"set-cookie", ()):
        confined = confine_set_cookie(value, fence)
        if confined is not None:
            lines += b"\r\nSet-Cookie: " + confined
    workers = head.special.get(b"service-worker-allowed", [])
    if len(workers) == 1 and _is_scope_below(workers[0], fence.prefix):
        lines += b"\r\nService-Worker-Allowed: " + workers[0]
    return lines


def _is_scope_below(scope: bytes, prefix: bytes) -> bool:
    """Whether a service worker's scope stays below a prefix, read as a browser reads a URL: it
    resolves dots however they are spelled, and drops what is blank before it does."""
    return (
        scope.startswith(prefix)
        and _PLAIN_PATH.fullmatch(scope) is not None
        and not climbs(scope[len(prefix) :].split(b"/"))
    )

"""The heads that are written: built from what was read, never passed on whole.

What ends at this hop stays here, what a client claims about itself is replaced by what is known,
and the body's length is said once more, in our own words.
"""

from dataclasses import dataclass

from carrel_proxy.core.cookies import confine_set_cookie, without_reserved
from carrel_proxy.core.head import HOP_BY_HOP, RequestHead, ResponseHead, connection_tokens

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
        b"x-accel-redirect",
        b"x-sendfile",
    )
)
"""What one server must not say for all who share its origin, or to a web server before us."""

SERVER_SPECIAL = HOP_BY_HOP | _ORIGIN_WIDE | {b"set-cookie", b"service-worker-allowed"}
"""Fields to set apart in the responses of a user's server."""


@dataclass(slots=True)
class Onward:
    """What the next hop is told beside what the client said.

    Attributes:
        target: The path and query to ask for.
        fields: Lines with their CRLF: forwarded, request id, identity.
        firewall: Whether reserved cookies are removed.
        drop_authorization: Whether the `Authorization` field was ours and ends here.
    """

    target: bytes
    fields: bytes
    firewall: bool = False
    drop_authorization: bool = False


def request_bytes(head: RequestHead, onward: Onward, *, websocket: bool = False) -> bytes:
    """Return the head to send to a target."""
    special = head.special
    plain = head.plain
    if b"connection" in special and (nominated := connection_tokens(special) - _CONNECTION_OPTIONS):
        plain = _without(plain, nominated - _NEVER_NOMINATED)
    lines = [b"%b %b HTTP/1.1\r\nHost: %b" % (head.method, onward.target, head.host), *plain]
    if special:
        if b"cookie" in special:
            cookies = special[b"cookie"]
            value = without_reserved(cookies) if onward.firewall else b"; ".join(cookies)
            if value is not None:
                lines.append(b"Cookie: " + value)
        if b"authorization" in special and not onward.drop_authorization:
            lines += [b"Authorization: " + value for value in special[b"authorization"]]
        if head.chunked:
            lines.append(b"Transfer-Encoding: chunked")
        elif head.length is not None:
            lines.append(b"Content-Length: %d" % head.length)
        if head.expects_continue:
            lines.append(b"Expect: 100-continue")
        if websocket:
            lines.append(b"Sec-WebSocket-Key: " + special[b"sec-websocket-key"][0])
            lines.append(b"Connection: Upgrade\r\nUpgrade: websocket")
    lines.append(onward.fields)
    return b"\r\n".join(lines) + b"\r\n"


def response_bytes(head: ResponseHead, framing: bytes, prefix: bytes | None) -> bytes:
    """Return the head to send to the client.

    Args:
        framing: Field lines with their CRLF that say where the body ends and whether the
            connection does.
        prefix: The route's prefix if a user's server answers, whose say is limited to that; None
            for everybody else.
    """
    special = head.special
    plain = head.plain
    if special:
        if b"connection" in special and (
            nominated := connection_tokens(special) - _CONNECTION_OPTIONS
        ):
            plain = _without(plain, nominated)
        if prefix is not None:
            plain = [*plain, *_confined(head, prefix)]
    status = b"HTTP/1.1 %d %b" % (head.status, head.reason)
    return b"\r\n".join((status, *plain, framing)) + b"\r\n"


def _confined(head: ResponseHead, prefix: bytes) -> list[bytes]:
    lines = []
    for value in head.special.get(b"set-cookie", ()):
        confined = confine_set_cookie(value, prefix)
        if confined is not None:
            lines.append(b"Set-Cookie: " + confined)
    workers = head.special.get(b"service-worker-allowed", [])
    if len(workers) == 1 and workers[0].startswith(prefix) and b".." not in workers[0]:
        lines.append(b"Service-Worker-Allowed: " + workers[0])
    return lines


def _without(lines: list[bytes], names: frozenset[bytes]) -> list[bytes]:
    return [line for line in lines if line[: line.index(b":")].lower() not in names]

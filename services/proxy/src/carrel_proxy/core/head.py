"""Message heads, read strictly (RFC 9112). Owns the grammar; knows nothing of connections.

One reader for both directions and no second opinion: where two parsers look at the same bytes,
whatever they disagree on is a hole. So there is no leniency for anybody: lines end in CRLF, names
are tokens, values hold no control characters, nothing is folded, there is one Host, and the length
of a body is said once.
"""

import ipaddress
import re
from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeVar

from carrel_proxy.core.fields import (
    HOP_BY_HOP,
    HOP_BY_HOP_FIELDS,
    Fields,
    connection_tokens,
    field_values,
    fields_pattern,
    split_fields,
)
from carrel_proxy.errors import BadRequestError, BadResponseError

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_TEXT = rb"[\t\x20-\x7e\x80-\xff]"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb"{1,64}+) ([\x21-\x7e]++) HTTP/([0-9])\.([0-9])\r\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: (" + _TEXT + rb"*+))?\r\n")
_FIELDS = re.compile(rb"(?:" + _TOKEN + rb"++:" + _TEXT + rb"*+\r\n)*+\r\n")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_HOST = re.compile(rb"(?:[A-Za-z0-9._\-]{1,255}|\[([0-9A-Fa-f:.]{2,45})\])(?::([0-9]{1,5}))?")
_ABSOLUTE = re.compile(rb"https?://([^/?#]+)(.*)", re.IGNORECASE)
_CODING = re.compile(_TOKEN + rb"+")
# A line feed without its carriage return, a carriage return without its line feed, or another
# control character: enough to refuse a head that has not ended yet.
_BROKEN = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

_VERSION = b"HTTP/1."

END = b"\r\n\r\n"

MOST_DERIVED = 64

T = TypeVar("T")

_REQUEST_SPECIAL = HOP_BY_HOP | {
    b"authorization",
    b"cookie",
    b"expect",
    b"forwarded",
    b"host",
    b"sec-websocket-key",
    b"x-http-method-override",
    b"x-original-host",
    b"x-original-url",
    b"x-real-ip",
    b"x-request-id",
    b"x-rewrite-url",
    b"x-scheme",
}

_REQUEST_FIELDS = fields_pattern(
    _REQUEST_SPECIAL, rb"x-(?:forwarded|carrel)-[^:]*+", rb"[^:_\r]*+_[^:]*+"
)


@dataclass(frozen=True, slots=True)
class HeadLimits:
    """Bounds of a head, in bytes and fields."""

    head: int = 32 * 1024
    target: int = 8 * 1024
    fields: int = 100


RESPONSE_LIMITS = HeadLimits(head=64 * 1024, target=0, fields=300)


@dataclass(slots=True)
class RequestHead:
    """A request that may go on.

    Attributes:
        target: Path and query as received; an absolute form is reduced to them.
        minor: The minor version of HTTP/1.
        host: The `Host` field as received.
        plain: Field lines that need no thought and go on as they came, CRLF before each.
        special: Values of the fields that do need some, by lower-case name.
        length: `Content-Length`, None without one.
        chunked: The body is chunked.
        keep_alive: The client would send another request on this connection.
        section: The fields as they came.
        derived: What was worked out from the fields alone, by whoever did. It is shared by all
            requests of a connection that repeat the same fields, as browsers' polls do.
    """

    method: bytes
    target: bytes
    minor: int
    host: bytes
    plain: bytes
    special: Fields
    length: int | None
    chunked: bool
    keep_alive: bool
    section: bytes
    derived: dict[Hashable, Any]

    def remember(self, key: Hashable, value: T) -> T:
        """Put something among what was derived, which stays small whatever a client asks for."""
        if len(self.derived) >= MOST_DERIVED:
            self.derived.clear()
        self.derived[key] = value
        return value

    @property
    def has_body(self) -> bool:
        return self.chunked or bool(self.length)

    @property
    def expects_continue(self) -> bool:
        """The client waits to be told to send its body (RFC 9110 10.1.1)."""
        return self.minor == 1 and b"expect" in self.special

    def values(self, name: bytes) -> list[bytes]:
        """Return every value of a field."""
        return self.special.get(name) or field_values(self.plain, name)

    def value(self, name: bytes) -> bytes | None:
        """Return the value of a field that was sent once; twice or never is None."""
        values = self.values(name)
        return values[0] if len(values) == 1 else None


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """A response's status and fields, as `RequestHead` keeps them.

    Attributes:
        openings: What was worked out from it alone, where many responses share it.
    """

    minor: int
    status: int
    reason: bytes
    plain: bytes
    special: Fields
    length: int | None
    chunked: bool
    keep_alive: bool
    openings: dict[Hashable, Any] | None = field(default=None, compare=False, repr=False)


def check_partial(data: bytes, limits: HeadLimits, start: int = 0) -> None:
    """Refuse a head that has not ended but cannot become a good one.

    Args:
        data: Everything so far.
        start: Where the part begins that was not checked before.

    Raises:
        BadRequestError: With 400, 414 or 431.
    """
    if _BROKEN.search(data, max(start - 1, 0)):
        raise BadRequestError("a line does not end in CRLF, or holds control characters")
    if len(data) > limits.head:
        _refuse_size(data, limits)
    if len(data) > limits.target + 80 and b"\r\n" not in data:
        raise BadRequestError("the request target is too long", 414)


def _refuse_size(data: bytes, limits: HeadLimits) -> None:
    line_end = data.find(b"\r\n")
    if line_end < 0 or line_end > limits.target + 80:
        raise BadRequestError("the request target is too long", 414)
    raise BadRequestError("the header section is too large", 431)


def parse_request(
    head: bytes,
    limits: HeadLimits,
    default_host: bytes = b"",
    before: RequestHead | None = None,
) -> RequestHead:
    """Read a request head that ends in an empty line.

    Args:
        head: All of it, the empty line included.
        default_host: Taken for an HTTP/1.0 request without `Host`.
        before: The last request of the same connection. Fields that are the same to the byte
            mean the same, and are not read again.

    Raises:
        BadRequestError: If it is anything but well-formed and unambiguous.
    """
    if len(head) > limits.head:
        _refuse_size(head, limits)
    line = _REQUEST_LINE.match(head)
    if line is None:
        raise BadRequestError("the request line is malformed")
    method, target, major, minor_text = line.groups()
    if major != b"1" or minor_text not in (b"0", b"1"):
        raise BadRequestError("this proxy speaks HTTP/1.1", 505)
    if len(target) > limits.target:
        raise BadRequestError("the request target is too long", 414)
    if method == b"CONNECT" or method == b"TRACE":
        raise BadRequestError(f"{method.decode('ascii')} is not allowed here", 405)
    minor = 1 if minor_text == b"1" else 0
    start = line.end() - 2
    section = head[start:-4]
    if before is None or section != before.section or minor != before.minor:
        if _FIELDS.fullmatch(head, start + 2) is None:
            raise BadRequestError("a header field is malformed")
        before = _read_fields(section, minor, limits, default_host)
    if target[0] != 0x2F:  # a slash
        target = _origin_form(target, before.host)
    if b"#" in target:
        raise BadRequestError("the request target has a fragment")
    return RequestHead(
        method,
        target,
        minor,
        before.host,
        before.plain,
        before.special,
        before.length,
        before.chunked,
        before.keep_alive,
        section,
        before.derived,
    )


def _read_fields(
    section: bytes, minor: int, limits: HeadLimits, default_host: bytes
) -> RequestHead:
    """Return a head that has everything but its request line."""
    if section.count(b"\r\n") > limits.fields:
        raise BadRequestError("there are too many header fields", 431)
    plain, special = split_fields(section, _REQUEST_FIELDS)
    host = _one_host(special.pop(b"host", None), minor, default_host)
    length, chunked = _request_framing(special, minor)
    if b"expect" in special:
        _check_expect(special[b"expect"])
    keep_alive = minor == 1 and (
        b"connection" not in special or b"close" not in connection_tokens(special)
    )
    return RequestHead(
        b"", b"", minor, host, plain, special, length, chunked, keep_alive, section, {}
    )


def parse_response(
    head: bytes, special_fields: re.Pattern[bytes] = HOP_BY_HOP_FIELDS
) -> ResponseHead:
    """Read a response head that ends in an empty line.

    Args:
        head: All of it, the empty line included.
        special_fields: Finds the fields to set apart; at least those of `HOP_BY_HOP_FIELDS`.

    Raises:
        BadResponseError: If it is malformed, or says twice how long its body is.
    """
    line = _STATUS_LINE.match(head)
    if line is None:
        raise BadResponseError("the status line is malformed")
    start = line.end()
    if _FIELDS.fullmatch(head, start) is None:
        raise BadResponseError("a header field is malformed")
    minor_text, status, reason = line.groups()
    section = head[start - 2 : -4]
    if section.count(b"\r\n") > RESPONSE_LIMITS.fields:
        raise BadResponseError("there are too many header fields")
    plain, special = split_fields(section, special_fields)
    minor = 1 if minor_text == b"1" else 0
    lengths = special.get(b"content-length")
    codings = special.get(b"transfer-encoding")
    length = None
    if lengths is not None:
        if codings is not None:
            raise BadResponseError("Content-Length and Transfer-Encoding together")
        if len(lengths) != 1 or not _LENGTH.fullmatch(lengths[0]):
            raise BadResponseError("Content-Length is malformed or said twice")
        length = int(lengths[0])
    if codings is not None and (
        len(codings) != 1 or codings[0].lower() != b"chunked" or minor == 0
    ):
        raise BadResponseError("Transfer-Encoding is something else than chunked")
    tokens = connection_tokens(special) if b"connection" in special else ()
    keep_alive = b"close" not in tokens if minor == 1 else b"keep-alive" in tokens
    return ResponseHead(
        minor,
        int(status),
        reason or b"",
        plain,
        special,
        length,
        codings is not None,
        keep_alive,
    )


def check_partial_response(data: bytes, start: int = 0) -> None:
    """Refuse a response head that has not ended but cannot become a good one.

    Args:
        data: Everything so far.
        start: Where the part begins that was not checked before.

    Raises:
        BadResponseError: Whoever sent it may never send more.
    """
    if len(data) > RESPONSE_LIMITS.head:
        raise BadResponseError("the response head is too large")
    if start < len(_VERSION) and data[: len(_VERSION)] != _VERSION[: len(data)]:
        raise BadResponseError("the response is not HTTP/1")
    if _BROKEN.search(data, max(start - 1, 0)):
        raise BadResponseError("a line does not end in CRLF, or holds control characters")


@lru_cache(maxsize=1024)
def is_host(value: bytes) -> bool:
    """Whether this is one `host` or `host:port`, and nothing else (RFC 9110 7.2)."""
    match = _HOST.fullmatch(value)
    if match is None:
        return False
    literal, port = match.groups()
    if literal is not None:
        try:
            ipaddress.IPv6Address(literal.decode("ascii"))
        except ValueError:
            return False
    return port is None or int(port) <= 65535


def _one_host(values: list[bytes] | None, minor: int, default: bytes) -> bytes:
    if values is None:
        if minor == 0 and default:
            return default
        raise BadRequestError("there is no Host field")
    if len(values) != 1 or not is_host(values[0]):
        raise BadRequestError("the Host field is malformed or sent twice")
    return values[0]


def _origin_form(target: bytes, host: bytes) -> bytes:
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise BadRequestError("the request target is no path")
    authority, rest = absolute.groups()
    if authority.lower() != host.lower():
        raise BadRequestError("the request target names another host than the Host field")
    return rest if rest.startswith(b"/") else b"/" + rest


def _request_framing(special: Fields, minor: int) -> tuple[int | None, bool]:
    lengths = special.get(b"content-length")
    codings = special.get(b"transfer-encoding")
    if codings is not None:
        if lengths is not None:
            raise BadRequestError("Content-Length and Transfer-Encoding together")
        if minor == 0:
            raise BadRequestError("Transfer-Encoding in HTTP/1.0")
        if len(codings) != 1 or codings[0].lower() != b"chunked":
            known_form = len(codings) == 1 and _CODING.fullmatch(codings[0])
            raise BadRequestError(
                "Transfer-Encoding is something else than chunked", 501 if known_form else 400
            )
        return None, True
    if lengths is None:
        return None, False
    if len(lengths) != 1 or not _LENGTH.fullmatch(lengths[0]):
        raise BadRequestError("Content-Length is malformed or sent twice")
    return int(lengths[0]), False


def _check_expect(values: list[bytes]) -> None:
    if len(values) != 1 or values[0].lower() != b"100-continue":
        raise BadRequestError("this expectation cannot be met", 417)

"""Where a response's body ends, on both sides of the proxy (RFC 9112 6.3)."""

from enum import Enum

from carrel_proxy.core.head import ResponseHead


class Body(Enum):
    """How the end of a body is known."""

    NONE = "none"
    SIZED = "sized"
    CHUNKED = "chunked"
    UNTIL_CLOSE = "until close"


def response_body(head: ResponseHead, method: bytes) -> Body:
    """Return how the body that comes from a target ends."""
    if method == b"HEAD" or head.status in (204, 304) or head.status < 200:
        return Body.NONE
    if head.chunked:
        return Body.CHUNKED
    if head.length is not None:
        return Body.SIZED if head.length else Body.NONE
    return Body.UNTIL_CLOSE


def onward_framing(
    head: ResponseHead, body: Body, client_minor: int, *, keep_alive: bool
) -> tuple[bytes, Body]:
    """Return the framing fields for the client, and how the body to the client ends.

    Args:
        client_minor: The client's version; HTTP/1.0 knows no chunks.
        keep_alive: Whether the connection may carry another request.
    """
    closing = b"" if keep_alive else b"Connection: close\r\n"
    if body is Body.NONE:
        # The length of what a GET would have brought; 204 and 1xx may not have one.
        if head.length is not None and head.status != 204 and head.status >= 200:
            return b"Content-Length: %d\r\n%b" % (head.length, closing), body
        return closing, body
    if body is Body.SIZED:
        return b"Content-Length: %d\r\n%b" % (head.length or 0, closing), body
    if client_minor == 1:
        return b"Transfer-Encoding: chunked\r\n" + closing, Body.CHUNKED
    return b"Connection: close\r\n", Body.UNTIL_CLOSE

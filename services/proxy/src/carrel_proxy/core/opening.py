"""How a response begins for a client: its head, and how its body is passed on."""

from typing import NamedTuple

from carrel_proxy.core.cookies import Fence
from carrel_proxy.core.framing import Body, onward_framing, response_body
from carrel_proxy.core.head import ResponseHead
from carrel_proxy.core.headers import response_bytes


class Opening(NamedTuple):
    """The first that a client is sent of a response, and what follows.

    Attributes:
        data: The head.
        body: How the body that comes from the target ends.
        onward: How the body to the client ends.
        keep_alive: After it the client may send another request.
    """

    data: bytes
    body: Body
    onward: Body
    keep_alive: bool


def opening(
    head: ResponseHead, method: bytes, minor: int, fence: Fence | None, *, keep_alive: bool
) -> Opening:
    """Return how a response begins.

    Args:
        method: The request's.
        minor: The version of HTTP/1 that the client speaks.
        fence: What limits the say of a user's server.
        keep_alive: The client may send another request, as far as it and the proxy are concerned.
    """
    openings = head.openings
    if openings is None:
        return _opening(head, method, minor, fence, keep_alive=keep_alive)
    key = (method == b"HEAD", minor, keep_alive)
    known = openings.get(key)
    if known is None:
        known = openings[key] = _opening(head, method, minor, fence, keep_alive=keep_alive)
    return known


def _opening(
    head: ResponseHead, method: bytes, minor: int, fence: Fence | None, *, keep_alive: bool
) -> Opening:
    body = response_body(head, method)
    framing, onward = onward_framing(head, body, minor, keep_alive=keep_alive)
    data = response_bytes(head, framing, fence)
    return Opening(data, body, onward, keep_alive and onward is not Body.UNTIL_CLOSE)

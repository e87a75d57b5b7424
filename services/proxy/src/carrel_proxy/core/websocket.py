"""The opening handshake of a WebSocket (RFC 6455 4). Pure; nothing here reads a frame."""

import base64
import hashlib
import re
from enum import Enum, auto

from carrel_proxy.core.fields import connection_tokens, field_values
from carrel_proxy.core.head import RequestHead, ResponseHead
from carrel_proxy.errors import BadRequestError, BadResponseError

_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Upgrade(Enum):
    """What a request wants to become."""

    NONE = auto()
    WEBSOCKET = auto()


def requested_upgrade(head: RequestHead) -> Upgrade:
    """Return whether this is a WebSocket handshake. Any other upgrade is an ordinary request.

    Raises:
        BadRequestError: If it wants to be a handshake and is none.
    """
    values = head.special.get(b"upgrade")
    if (
        values is None
        or [value.lower() for value in values] != [b"websocket"]
        or b"upgrade" not in connection_tokens(head.special)
    ):
        return Upgrade.NONE
    if head.method != b"GET" or head.minor == 0 or head.has_body:
        raise BadRequestError("a WebSocket handshake is a GET of HTTP/1.1 without a body")
    keys = head.special.get(b"sec-websocket-key", [])
    if len(keys) != 1 or not _KEY.fullmatch(keys[0]):
        raise BadRequestError("Sec-WebSocket-Key is malformed, missing or sent twice")
    return Upgrade.WEBSOCKET


def accept_for(key: bytes) -> bytes:
    """Return the `Sec-WebSocket-Accept` that answers a key (RFC 6455 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def check_accepted(head: ResponseHead, key: bytes) -> None:
    """Refuse a 101 that does not answer this handshake.

    Raises:
        BadResponseError: Then nothing may be tunnelled: the two sides would not agree on what the
            bytes are.
    """
    upgrade = [value.lower() for value in head.special.get(b"upgrade", [])]
    accept = field_values(head.plain, b"sec-websocket-accept")
    if upgrade != [b"websocket"] or b"upgrade" not in connection_tokens(head.special):
        raise BadResponseError("101 that is no WebSocket")
    if accept != [accept_for(key)]:
        raise BadResponseError("101 with a wrong Sec-WebSocket-Accept")

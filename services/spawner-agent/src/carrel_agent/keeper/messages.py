"""What keeper, agent and zygote say to each other: one JSON object a packet, descriptors beside it.

The sockets are SOCK_SEQPACKET pairs, so a packet is a message and neither is ever cut in two.
"""

import json
import os
import socket
from collections.abc import Sequence
from typing import Any

MAX_MESSAGE = 64 * 1024
MAX_DESCRIPTORS = 4
EXITS_IN_A_REPLY = 200

KEEPER_FD_VARIABLE = "CARREL_KEEPER_FD"
ZYGOTE_FD_VARIABLE = "CARREL_ZYGOTE_FD"
ZYGOTE_PRELOAD_VARIABLE = "CARREL_ZYGOTE_PRELOAD"
ZYGOTE_TRUST_VARIABLE = "CARREL_ZYGOTE_TRUST"

Message = dict[str, Any]


class MessageError(ValueError):
    """A packet that is no message of ours."""


def new_pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected ends, close-on-exec, not blocking."""
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in pair:
        end.setblocking(False)
    return pair


def encode(message: Message) -> bytes:
    """Return the packet for `message`.

    Raises:
        MessageError: If it is too long for one packet.
    """
    data = json.dumps(message, separators=(",", ":")).encode("ascii")
    if len(data) > MAX_MESSAGE:
        raise MessageError(f"a message of {len(data)} bytes; {MAX_MESSAGE} are allowed")
    return data


def send(channel: socket.socket, data: bytes, descriptors: Sequence[int] = ()) -> None:
    """Send one packet.

    Raises:
        BlockingIOError: If the peer does not keep up. Nothing was sent.
        OSError: If the peer is gone.
    """
    socket.send_fds(channel, [data], list(descriptors))


def receive(channel: socket.socket) -> tuple[Message, list[int]] | None:
    """Return the next message and its descriptors (close-on-exec), or None at the end.

    Raises:
        BlockingIOError: If there is none yet.
        MessageError: If the packet is no message. Its descriptors are closed.
    """
    data, descriptors, flags, _address = socket.recv_fds(channel, MAX_MESSAGE, MAX_DESCRIPTORS)
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    if not data:
        close_all(descriptors)
        return None
    try:
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise MessageError("a packet was cut short")
        message = json.loads(data)
        if not isinstance(message, dict):
            raise MessageError("a packet holds no JSON object")
    except ValueError as error:
        close_all(descriptors)
        raise MessageError(str(error)) from None
    return message, descriptors


def close_all(descriptors: Sequence[int]) -> None:
    """Close descriptors nobody needs any more."""
    for descriptor in descriptors:
        os.close(descriptor)

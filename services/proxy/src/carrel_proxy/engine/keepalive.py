"""Peers that vanished without a word: found by the kernel, which probes those that are silent."""

import asyncio
import socket
import struct
from typing import cast

_AT_ONCE = struct.pack("ii", 1, 0)  # struct linger: socket(7)


def connected_socket(transport: asyncio.Transport) -> socket.socket | None:
    """Return the socket under a transport; None when it is closed."""
    found = cast(socket.socket | None, transport.get_extra_info("socket"))
    return found if found is not None and found.fileno() >= 0 else None


def fileno_of(transport: asyncio.Transport) -> int | None:
    found = connected_socket(transport)
    return None if found is None else found.fileno()


def probe_silent_peers(target: socket.socket, seconds: float) -> None:
    """Have the kernel end a TCP connection whose peer answers nothing for `seconds`.

    Set on a listening socket it holds for all that are accepted.
    """
    if target.family == socket.AF_UNIX:
        return
    between = _between(seconds)
    before = max(1, int(seconds / 4))
    count = max(1, int((seconds - before) / between) - 1)
    target.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    target.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, before)
    target.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, between)
    target.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, min(count, 127))


def notice_vanished(transport: asyncio.Transport, seconds: float) -> None:
    """Have the kernel end a connection whose peer vanished, also if something was sent to it since.

    The limit on what is sent also ends a connection whose peer is there and takes nothing for so
    long: the kernel knows no other (TCP_USER_TIMEOUT in tcp(7)).
    """
    connected = connected_socket(transport)
    if connected is None or connected.family == socket.AF_UNIX:
        return
    probe_silent_peers(connected, seconds)
    limit = max(1, seconds - 2 * _between(seconds))  # looked at with each probe only
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(limit * 1000))


def abort_unsent(transport: asyncio.Transport) -> None:
    """End a connection with a reset, so that nothing more of what was written arrives.

    By itself the kernel goes on sending that after the end, once the peer can be reached again, and
    then an end that looks like a good one.
    """
    connected = connected_socket(transport)
    if connected is not None:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
    transport.abort()


def _between(seconds: float) -> int:
    return max(1, int(seconds / 12))

"""The end of a listener, so that nobody who has connected is lost.

The kernel finishes handshakes by itself and lets the connections wait; what still waits when the
last descriptor of a listener is closed is reset. So nobody new is let in first, then those who wait
are accepted, and only then it is closed.
"""

import contextlib
import os
import select
import socket
import struct

_SO_ATTACH_FILTER = 26
# BPF over the TCP header: take the flags; a SYN that is no answer is dropped, all else passes.
_ONLY_KNOWN = (
    (0x30, 0, 0, 13),  # load byte 13: the flags
    (0x54, 0, 0, 0x12),  # keep SYN and ACK
    (0x15, 0, 1, 0x02),  # SYN alone?
    (0x06, 0, 0, 0),  # drop it
    (0x06, 0, 0, 0xFFFFFFFF),  # pass it whole
)


def admit_no_more(descriptor: int) -> None:
    """Let nobody new connect to a listener. Who has connected waits to be accepted as before.

    A dropped attempt is repeated by the client's kernel, and by then refused.
    """
    with socket.socket(fileno=os.dup(descriptor)) as listener:
        if listener.family == socket.AF_UNIX:
            with contextlib.suppress(OSError):
                os.unlink(listener.getsockname())  # noqa: PTH108 - pathlib costs a megabyte
            return
        code = b"".join(struct.pack("HBBI", *step) for step in _ONLY_KNOWN)
        buffer = bytearray(code)
        with contextlib.suppress(OSError):  # where there is no BPF a few may be reset
            listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, _program(buffer))


def _program(code: bytearray) -> bytes:
    """Return a `struct sock_fprog` that points to the code."""
    import ctypes

    address = ctypes.addressof((ctypes.c_char * len(code)).from_buffer(code))
    return struct.pack("HL", len(_ONLY_KNOWN), address)


def somebody_waits(descriptor: int) -> bool:
    """Whether connections of a listener wait to be accepted."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))

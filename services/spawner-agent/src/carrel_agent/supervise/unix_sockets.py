"""Whether a unix socket is open, by its number, which the kernel gives and nobody can choose.

A name says nothing: in a mount namespace of their own anybody binds sockets of any name, and in
`/proc/net/unix` a name with a line break in it poses as lines of others. The kernel is asked for
that one number (sock_diag(7)); the table is read only where it does not answer.
"""

import os
import socket
import struct
from pathlib import Path

TABLE = Path("/proc/net/unix")

_SOCK_DIAG = 4  # NETLINK_SOCK_DIAG
_BY_FAMILY = 20  # SOCK_DIAG_BY_FAMILY
_REQUEST = 1  # NLM_F_REQUEST
_ANY = 0xFFFFFFFF

_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_QUESTION = struct.Struct(
    "=BBxxIIIII"
)  # unix_diag_req: family, protocol, states, ino, show, cookie


def number_of(descriptor: int) -> int:
    """Return the number of an open socket."""
    return os.fstat(descriptor).st_ino


def is_open(number: int) -> bool:
    """Return whether there is a unix socket of this number, be it in a message on its way."""
    if _is_known(number):
        return True
    # The kernel also says that it finds nothing when it cannot answer such questions at all.
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as own:
        answers = _is_known(number_of(own.fileno()))
    return not answers and str(number) in {row[6] for row in table()}


def numbers_of(path: Path) -> set[int]:
    """Return the numbers of sockets that say they are bound at `path`. Anybody's may say so."""
    return {int(row[6]) for row in table() if len(row) == 8 and row[7] == str(path)}


def table() -> list[list[str]]:
    """Return the rows of `/proc/net/unix`."""
    text = TABLE.read_text(encoding="utf-8", errors="surrogateescape")
    rows = [line.split(None, 7) for line in text.splitlines()[1:]]
    return [row for row in rows if len(row) > 6 and row[6].isdigit()]


def _is_known(number: int) -> bool:
    question = _QUESTION.pack(socket.AF_UNIX, 0, _ANY, number, 0, _ANY, _ANY)
    length = _HEADER.size + len(question)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as kernel:
            kernel.send(_HEADER.pack(length, _BY_FAMILY, _REQUEST, 1, 0) + question)
            _length, kind, *_ = _HEADER.unpack_from(kernel.recv(1 << 16))
    except OSError:
        return False
    return bool(kind == _BY_FAMILY)

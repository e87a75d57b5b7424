"""Whose sockets listen on a port: the kernel is asked for that one port (sock_diag(7)).

`/proc/net/tcp` says the same, line by line for every connection of the host: milliseconds where
there are thousands. It is read only where the kernel does not answer the short question.
"""

import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

_SOCK_DIAG = 4  # NETLINK_SOCK_DIAG
_BY_FAMILY = 20  # SOCK_DIAG_BY_FAMILY
_REQUEST_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_ERROR, _DONE = 2, 3  # NLMSG_ERROR, NLMSG_DONE
_LISTEN = 10  # TCP_LISTEN

_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_QUESTION = struct.Struct("=BBBxI2s46x")  # inet_diag_req_v2: family, protocol, ext, states, sport
_ANSWER = struct.Struct("=4x2s46x12xI4x")  # inet_diag_msg: of it the port and the uid

_TABLES = {
    socket.AF_INET: Path("/proc/net/tcp"),
    socket.AF_INET6: Path("/proc/net/tcp6"),
}


def listener_uids(port: int) -> set[int]:
    """Return the accounts whose sockets listen on a port, on any address."""
    found: set[int] = set()
    for family, table in _TABLES.items():
        try:
            found.update(_asked(family, port))
        except OSError:
            with contextlib.suppress(OSError):  # there is no IPv6 here
                found.update(_read(table, port))
    return found


def _asked(family: int, port: int) -> list[int]:
    """Return what the kernel answers.

    Raises:
        OSError: It does not.
    """
    number = port.to_bytes(2, "big")
    question = _QUESTION.pack(family, socket.IPPROTO_TCP, 0, 1 << _LISTEN, number)
    length = _HEADER.size + len(question)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as kernel:
        kernel.send(_HEADER.pack(length, _BY_FAMILY, _REQUEST_DUMP, 1, 0) + question)
        return [uid for its, uid in _answers(kernel) if its == number]


def _answers(kernel: socket.socket) -> Iterator[tuple[bytes, int]]:
    while True:
        data, start = kernel.recv(1 << 16), 0
        while start < len(data):
            length, kind, *_ = _HEADER.unpack_from(data, start)
            body = start + _HEADER.size
            if kind == _DONE:
                return
            if kind == _ERROR:
                number = -struct.unpack_from("=i", data, body)[0]
                raise OSError(number, os.strerror(number))
            yield _ANSWER.unpack_from(data, body)
            start += (length + 3) & ~3


def _read(table: Path, port: int) -> set[int]:
    """Return what stands in a table of proc_net(5).

    Raises:
        OSError: There is none.
    """
    found, wanted = set(), f":{port:04X}"
    for line in table.read_bytes().decode("latin-1").splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and fields[1].endswith(wanted):
            found.add(int(fields[7]))
    return found

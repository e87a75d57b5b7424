"""Loopback ports for servers that can only listen on one.

Nobody owns a port before it is listened on, so another account may be quicker. That is seen, not
prevented: a listener of another account is never taken for the server.
"""

import contextlib
import secrets
import socket
from collections.abc import Collection
from pathlib import Path

FIRST_PORT, LAST_PORT = 20000, 32767
"""Below what the kernel gives to outgoing connections by itself (ip_local_port_range)."""

_LISTENING = "0A"
_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_TRIES = 200


class NoPortError(Exception):
    """Every port that was tried is in use."""


def choose_port(taken: Collection[int]) -> int:
    """Return a loopback port that nothing listens on now.

    Args:
        taken: Ports that were given to servers which may not listen yet.

    Raises:
        NoPortError: There is none.
    """
    for _ in range(_TRIES):
        port = FIRST_PORT + secrets.randbelow(LAST_PORT - FIRST_PORT + 1)
        if port not in taken and _is_free(port):
            return port
    raise NoPortError(f"no free port was found between {FIRST_PORT} and {LAST_PORT}")


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def listener_uids(port: int) -> set[int]:
    """Return the accounts whose sockets listen on a port, on any address (proc_net(5))."""
    found: set[int] = set()
    wanted = f":{port:04X}"
    for table in _TABLES:
        with contextlib.suppress(OSError):
            text = table.read_bytes().decode("latin-1")
            if f"{wanted} " not in text:  # busy hosts have thousands of lines
                continue
            for line in text.splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENING and fields[1].endswith(wanted):
                    found.add(int(fields[7]))
    return found

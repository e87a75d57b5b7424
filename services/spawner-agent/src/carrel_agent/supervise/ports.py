"""Loopback ports for servers that can only listen on one.

Nobody owns a port before it is listened on, so another account may be quicker. That is seen, not
prevented (`listeners`): a listener of another account is never taken for the server.
"""

import secrets
import socket
from collections.abc import Collection

FIRST_PORT, LAST_PORT = 20000, 32767
"""Below what the kernel gives to outgoing connections by itself (ip_local_port_range)."""

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

"""Ports for programs that are told theirs before they bind it."""

import random
import socket
from contextlib import suppress

PORTS = range(10_000, 20_000)
"""Below what the kernel gives by itself (ip_local_port_range), and what the agent gives."""


def free_port() -> int:
    """Return a port that nobody has, and that nobody else is given until these tests end.

    One that the kernel picks may be anybody's next connection's before the program binds it. A name
    in the abstract namespace of unix sockets, which lasts as long as this process does, keeps other
    tests from taking the same one.
    """
    while True:
        port = random.choice(PORTS)  # noqa: S311 - nothing secret
        claim = socket.socket(socket.AF_UNIX)
        with suppress(OSError), socket.socket() as probe:
            claim.bind(f"\0carrel-tests-port-{port}")
            probe.bind(("", port))
            claim.detach()
            return port
        claim.close()

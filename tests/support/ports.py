"""Ports for programs that are told theirs before they bind it."""

import fcntl
import functools
import os
import random
import socket
import tempfile

PORTS = range(10_000, 20_000)
"""Below what the kernel gives by itself (ip_local_port_range), and what the agent gives."""


def free_port() -> int:
    """Return a port that nobody has, and that no other test is given until this process ends.

    One that the kernel picks may be anybody's next connection's before the program binds it.
    """
    while True:
        port = random.choice(PORTS)  # noqa: S311 - nothing secret
        if port not in _given() and _claim(port) and _is_free(port):
            _given().add(port)
            return port


@functools.cache
def _given() -> set[int]:
    return set()


@functools.cache
def _claims() -> int:
    """Return a file whose byte N is locked by who has port N; the lock ends with its process."""
    path = f"{tempfile.gettempdir()}/carrel-tests-ports-{os.geteuid()}"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _claim(port: int) -> bool:
    try:
        fcntl.lockf(_claims(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True

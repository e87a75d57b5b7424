"""Whether a server answers: one GET where it listens, again and again until it does."""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from carrel_agent.supervise.listeners import listener_uids

FIRST_WAIT = 0.002
LONGEST_WAIT = 0.25
GROWTH = 1.06
"""Of one wait over the one before: each is some six hundredths of the time that has passed."""
ANSWER_SECONDS = 5.0
MAX_STATUS_LINE = 1024


@dataclass(frozen=True, slots=True)
class Listening:
    """Where a server is to listen: at a socket, or at a loopback port that must be `uid`'s."""

    socket: str
    port: int = 0
    uid: int = 0


async def probes(where: Listening, base_url: str) -> AsyncIterator[int | None]:
    """Ask for `{base_url}api` again and again, and yield what came of it, as `probe` does."""
    waits = _waits()
    if where.port:
        await _until_somebody_listens(where.port, waits)
    for wait in waits:
        yield await probe(where, f"{base_url}api")
        await asyncio.sleep(wait)


def _waits() -> Iterator[float]:
    wait = FIRST_WAIT
    while True:
        yield wait
        wait = min(wait * GROWTH, LONGEST_WAIT)


async def _until_somebody_listens(port: int, waits: Iterator[float]) -> None:
    """Wait for a loopback port to take connections: known at once, and cheap to ask often."""
    place = ("127.0.0.1", port)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as asking:
        for wait in waits:
            said = asking.connect_ex(place)
            if said == errno.EINPROGRESS:
                said = asking.connect_ex(place)  # it is decided by now, and says how
            if said != errno.ECONNREFUSED:
                return
            await asyncio.sleep(wait)


def is_ready(status: int | None, *, any_answer: bool) -> bool:
    """Whether that is the answer of a server that is ready.

    Args:
        status: From `probe`.
        any_answer: Take every status below 500 for it, not only 200.
    """
    return status == 200 or (any_answer and bool(status) and (status or 0) < 500)


async def probe(where: Listening, target: str) -> int | None:
    """Return the status of one GET.

    0 if something of the server's took the connection and gave no HTTP answer; None if nothing did.
    """
    answered, loop = None, asyncio.get_running_loop()
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            with _opened(where) as connection:
                await loop.sock_connect(connection, _address(where))
                if where.port and listener_uids(where.port) != {where.uid}:
                    return None  # somebody else's, to which nothing is said
                answered = 0
                request = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
                await loop.sock_sendall(connection, request.encode("ascii"))
                line = await _status_line(connection)
    except (OSError, TimeoutError):
        return answered
    parts = line.split(None, 2)
    if len(parts) < 2 or not parts[0].startswith(b"HTTP/1.") or not parts[1].isdigit():
        return 0
    return int(parts[1][:3])


def _opened(where: Listening) -> socket.socket:
    family = socket.AF_INET if where.port else socket.AF_UNIX
    return socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)


def _address(where: Listening) -> tuple[str, int] | str:
    return ("127.0.0.1", where.port) if where.port else where.socket


async def _status_line(connection: socket.socket) -> bytes:
    """Return the first line, or what there is of it when it ends early or is too long."""
    received = b""
    while b"\n" not in received and len(received) < MAX_STATUS_LINE:
        part = await asyncio.get_running_loop().sock_recv(connection, MAX_STATUS_LINE)
        if not part:
            break
        received += part
    line, end, _ = received.partition(b"\r\n")
    return line if end else b""

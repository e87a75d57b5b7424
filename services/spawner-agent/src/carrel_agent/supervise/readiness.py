"""Whether a server answers: one GET where it listens, again and again until it does."""

import asyncio
from dataclasses import dataclass

from carrel_agent.supervise.ports import listener_uids

FIRST_WAIT = 0.01
LONGEST_WAIT = 0.25
ANSWER_SECONDS = 5.0
MAX_STATUS_LINE = 1024


@dataclass(frozen=True, slots=True)
class Listening:
    """Where a server is to listen: at a socket, or at a loopback port that must be `uid`'s."""

    socket: str
    port: int = 0
    uid: int = 0


async def until_ready(where: Listening, base_url: str, *, any_answer: bool) -> None:
    """Return when the server answers `{base_url}api`.

    Args:
        any_answer: Take every status below 500 for an answer, not only 200.
    """
    wait = FIRST_WAIT
    while True:
        status = await probe(where, f"{base_url}api")
        if status == 200 or (any_answer and status is not None and status < 500):
            return
        await asyncio.sleep(wait)
        wait = min(wait * 1.2, LONGEST_WAIT)


async def probe(where: Listening, target: str) -> int | None:
    """Return the status of one GET, or None if there was no HTTP answer of the server's."""
    if where.port and listener_uids(where.port) != {where.uid}:
        return None
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            if where.port:
                opening = asyncio.open_connection("127.0.0.1", where.port, limit=MAX_STATUS_LINE)
            else:
                opening = asyncio.open_unix_connection(where.socket, limit=MAX_STATUS_LINE)
            reader, writer = await opening
            try:
                request = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
                writer.write(request.encode("ascii"))
                line = await reader.readuntil(b"\r\n")
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return None
    parts = line.split(None, 2)
    if len(parts) < 2 or not parts[0].startswith(b"HTTP/1.") or not parts[1].isdigit():
        return None
    return int(parts[1][:3])

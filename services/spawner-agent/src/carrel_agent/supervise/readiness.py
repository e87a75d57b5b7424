"""Whether a server answers: one GET on its unix socket, again and again until it does."""

import asyncio

FIRST_WAIT = 0.01
LONGEST_WAIT = 0.25
ANSWER_SECONDS = 5.0
MAX_STATUS_LINE = 1024


async def until_ready(socket_path: str, base_url: str, *, any_answer: bool) -> None:
    """Return when the server answers `{base_url}api`.

    Args:
        any_answer: Take every status below 500 for an answer, not only 200.
    """
    wait = FIRST_WAIT
    while True:
        status = await probe(socket_path, f"{base_url}api")
        if status == 200 or (any_answer and status is not None and status < 500):
            return
        await asyncio.sleep(wait)
        wait = min(wait * 1.2, LONGEST_WAIT)


async def probe(socket_path: str, target: str) -> int | None:
    """Return the status of one GET, or None if there was no HTTP answer."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await asyncio.open_unix_connection(socket_path, limit=MAX_STATUS_LINE)
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

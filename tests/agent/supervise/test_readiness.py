"""When a server counts as answering."""

import asyncio
import os
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from carrel_agent.supervise.readiness import Listening, is_ready, probe, probes


@asynccontextmanager
async def server(*replies: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Yield the path of a socket that gives these replies in turn, and what it was asked."""
    left, asked = list(replies), []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n"))
        writer.write(left.pop(0) if len(left) > 1 else left[0])
        writer.close()

    with tempfile.TemporaryDirectory(prefix="ca", dir="/tmp") as directory:
        path = f"{directory}/s"
        async with await asyncio.start_unix_server(answer, path):
            yield path, asked


async def until_ready(path: str, *, any_answer: bool) -> None:
    async for status in probes(Listening(path), "/"):
        if is_ready(status, any_answer=any_answer):
            return


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", 200),
        (b"HTTP/1.0 404\r\n", 404),
        (b"SSH-2.0-OpenSSH\r\n", 0),
        (b"HTTP/1.1 OK\r\n", 0),
        (b"x" * 5000, 0),
        (b"", 0),
    ],
)
async def test_only_http_is_an_answer(reply: bytes, status: int | None) -> None:
    async with server(reply) as (path, asked):
        assert await probe(Listening(path), "/user/a/api") == status
        assert asked == [b"GET /user/a/api HTTP/1.1\r\n"]


async def test_a_missing_socket_is_no_answer() -> None:
    assert await probe(Listening("/nonexistent/socket"), "/") is None


async def test_jupyter_is_ready_at_200_and_a_command_of_ones_own_at_any_answer() -> None:
    replies = [b"HTTP/1.1 503 x\r\n", b"HTTP/1.1 404 x\r\n", b"HTTP/1.1 200 x\r\n"]
    async with asyncio.timeout(60):
        async with server(*replies) as (path, asked):
            await until_ready(path, any_answer=False)
            assert len(asked) == 3
        async with server(*replies) as (path, asked):
            await until_ready(path, any_answer=True)
            assert len(asked) == 2


async def test_a_port_is_asked_only_once_somebody_listens_there() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(1):  # else somebody looked whether there is anybody
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        writer.close()

    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        where = Listening("", port=bound.getsockname()[1], uid=os.getuid())

        async def first_answer() -> int | None:
            return await anext(probes(where, "/"))

        async with asyncio.TaskGroup() as group:
            first = group.create_task(first_answer())
            done, _ = await asyncio.wait([first], timeout=0.05)
            assert not done
            async with await asyncio.start_server(answer, sock=bound), asyncio.timeout(30):
                assert await first == 200

"""Calls without httpx, against services that answer well, late, in pieces, badly or not at all."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from carrel_shared.addresses import TcpAddress, UnixAddress
from carrel_shared.calls import ConnectError, LateAnswerError, LostAnswerError, PlainClient

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Service:
    """Answers each request on a connection with the next of what it is given."""

    def __init__(self, *answers: bytes | None, pieces: int = 1 << 20) -> None:
        self.answers, self.pieces = list(answers), pieces
        self.requests: list[bytes] = []
        self.connections = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
                self.requests.append(head + await reader.readexactly(int(length or 0)))
                answer = self.answers.pop(0)
                if answer is None:
                    break
                for start in range(0, len(answer), self.pieces):
                    writer.write(answer[start : start + self.pieces])
                    await writer.drain()
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def calling(service: Serve, seconds: float = 30) -> AsyncIterator[PlainClient]:
    with tempfile.TemporaryDirectory(prefix="calls") as directory:
        path = str(Path(directory, "s"))
        server = await asyncio.start_unix_server(service, path)
        async with server, PlainClient(UnixAddress(path), timeout_seconds=seconds) as client:
            yield client


async def test_a_connection_is_kept_and_used_again() -> None:
    service = Service(OK, OK)
    async with calling(service) as client:
        for _ in range(2):
            reply = await client.request(
                "POST", "/a?b=1", content=b"{}", headers={"Authorization": "Bearer x"}
            )
            assert (reply.status_code, reply.content, reply.text) == (200, b"ok", "ok")
    assert service.connections == 1
    assert service.requests[0] == (
        b"POST /a?b=1 HTTP/1.1\r\nHost: carrel.internal\r\nAuthorization: Bearer x\r\n"
        b"Content-Length: 2\r\n\r\n{}"
    )


def test_it_is_the_same_on_the_loop_that_services_run() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test_a_connection_is_kept_and_used_again())


async def test_calls_at_the_same_time_have_connections_of_their_own() -> None:
    service = Service(*[OK] * 40)
    async with calling(service) as client:
        await asyncio.gather(*[client.request("GET", "/") for _ in range(40)])
        assert 1 < service.connections <= 40


@pytest.mark.parametrize(
    "answer",
    [
        OK,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
    ],
)
async def test_an_answer_may_come_in_pieces(answer: bytes) -> None:
    async with calling(Service(answer, pieces=1)) as client:
        reply = await client.request("GET", "/")
        assert (reply.status_code, reply.content) == (200, b"ok")


async def test_who_closes_after_an_answer_is_called_anew() -> None:
    closing = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
    service = Service(closing, closing)
    async with calling(service) as client:
        for _ in range(2):
            assert (await client.request("GET", "/")).status_code == 204
    assert service.connections == 2


async def test_a_body_that_ends_with_the_connection_is_no_answer() -> None:
    async with calling(
        Service(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", None)
    ) as client:
        with pytest.raises(LostAnswerError):
            await asyncio.gather(client.request("GET", "/"), client.request("GET", "/"))


async def test_nonsense_silence_and_absence_are_told_apart() -> None:
    async with calling(Service(b"SSH-2.0-OpenSSH\r\n\r\n")) as client:
        with pytest.raises(LostAnswerError):
            await client.request("GET", "/")
    async with calling(Service(None)) as client:
        with pytest.raises(LostAnswerError):
            await client.request("GET", "/")
    async with calling(Service(b""), seconds=0.05) as client:
        with pytest.raises(LateAnswerError):
            await client.request("GET", "/")
    for address in (UnixAddress("/nowhere/at/all"), TcpAddress("127.0.0.1", 1)):
        with pytest.raises(ConnectError):
            await PlainClient(address).request("GET", "/")


async def test_what_nobody_asked_for_ends_a_connection() -> None:
    service = Service(OK + OK, OK)
    async with calling(service) as client:
        assert (await client.request("GET", "/")).content == b"ok"
        assert (await client.request("GET", "/")).content == b"ok"
    assert service.connections == 2


async def test_a_call_that_is_given_up_leaves_nothing_to_the_next() -> None:
    asked = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"/slow" in head:
            asked.set()
            await reader.read()
        writer.write(OK)
        writer.close()

    async with calling(serve) as client, asyncio.TaskGroup() as group:
        slow = group.create_task(client.request("GET", "/slow"))
        await asked.wait()
        slow.cancel()
        assert (await client.request("GET", "/")).content == b"ok"


async def test_no_header_is_smuggled_in() -> None:
    with pytest.raises(ValueError, match="line break"):
        await PlainClient(UnixAddress("/x")).request("GET", "/", headers={"A": "b\r\nC: d"})

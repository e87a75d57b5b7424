"""A reload under load: new workers, and nobody notices."""

import asyncio
import os
import signal
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from proxy.certificates import make_certificate
from proxy.process.program import Program, chp, is_alive, load_on, until
from proxy.wire import Client, Upstream, open_upstream

pytestmark = pytest.mark.anyio

HANDSHAKE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
ACCEPT = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Accept a WebSocket, and send its bytes back; answer anything else."""
    head = await reader.readuntil(b"\r\n\r\n")
    if b"upgrade" not in head.lower():
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        return
    writer.write(ACCEPT)
    while data := await reader.read(65536):
        writer.write(data)


async def open_socket(client: Client) -> None:
    client.get("/", *HANDSHAKE)
    assert (await client.head()).status == 101


async def open_socket_with(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: str, *fields: str
) -> None:
    client = Client(reader, writer)
    client.get(target, *HANDSHAKE, *fields)
    assert (await client.head()).status == 101


async def says_back(client: Client, data: bytes) -> bool:
    client.send(data)
    async with asyncio.timeout(60):
        return await client.reader.readexactly(len(data)) == data


async def routed(program: Program, upstream: Upstream) -> None:
    await program.route("/", upstream.target)


@pytest.mark.parametrize("workers", [1, 2])
async def test_no_request_is_lost(workers: int, short_dir: Path) -> None:
    async with open_upstream() as upstream, chp(short_dir, "--workers", str(workers)) as program:
        await routed(program, upstream)
        async with load_on(program.port) as load:
            seen = set(program.workers())
            for number in (1, 2, 3):
                await load.more(100)
                await program.reload(number)
                await load.more(100)
                now = set(program.workers())
                assert now - seen, "no new workers"
                seen |= now
        assert load.lost == []
        assert load.refused == 0
        assert program.process.poll() is None
        await until("old workers' end", lambda: len(program.workers()) == workers)


async def test_open_websockets_stay_until_the_deadline(short_dir: Path) -> None:
    async with (
        open_upstream() as upstream,
        chp(short_dir, "--reload-deadline", "8") as program,
        program.client() as client,
    ):
        upstream.script = echo
        await routed(program, upstream)
        await open_socket(client)
        (old,) = program.workers()
        await program.reload()
        assert await says_back(client, b"after the reload")
        assert is_alive(old)
        async with program.client() as another:
            await open_socket(another)
            assert await says_back(another, b"served by the new worker")
            await client.rest()
            await until("the old worker's end", lambda: not is_alive(old))
            assert await says_back(another, b"still")


async def test_a_worker_ends_with_its_last_socket(short_dir: Path) -> None:
    async with open_upstream() as upstream, chp(short_dir) as program:
        upstream.script = echo
        await routed(program, upstream)
        async with program.client() as client:
            await open_socket(client)
            (old,) = program.workers()
            await program.reload()
            assert is_alive(old)
        await until("the old worker's end", lambda: not is_alive(old))


async def test_generations_do_not_pile_up(short_dir: Path) -> None:
    async with open_upstream() as upstream, chp(short_dir) as program:
        upstream.script = echo
        await routed(program, upstream)
        async with program.client() as first:
            await open_socket(first)
            clients = []
            for number in range(1, 5):
                await program.reload(number)
                reader, writer = await asyncio.open_connection("127.0.0.1", program.port)
                client = Client(reader, writer)
                clients.append(client)
                await open_socket(client)
            await first.rest()
            assert await says_back(clients[0], b"the one after it stays")
            for client in clients:
                await client.close()


async def test_requests_in_progress_are_finished_by_the_old_worker(short_dir: Path) -> None:
    go_on = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")
        await go_on.wait()
        writer.write(b"-last")

    async with open_upstream() as upstream, chp(short_dir) as program, program.client() as client:
        upstream.script = slow
        await routed(program, upstream)
        client.get("/")
        assert (await client.head()).status == 200
        await program.reload()
        go_on.set()
        assert await client.rest() == b"first-last"


async def test_routes_and_their_use_pass_to_the_new_workers(short_dir: Path) -> None:
    async with open_upstream() as upstream, chp(short_dir) as program:
        await routed(program, upstream)
        await program.route("/user/alice", upstream.target)
        _, before = await program.call("GET", "/api/routes")
        await program.reload()
        _, after = await program.call("GET", "/api/routes")
        assert after.keys() == before.keys() == {"/", "/user/alice"}
        for key, route in after.items():
            assert route["target"] == before[key]["target"]
            times = [datetime.fromisoformat(one[key]["last_activity"]) for one in (before, after)]
            assert abs(times[1] - times[0]) < timedelta(milliseconds=100), "by another clock's zero"


async def test_options_that_cannot_be_followed_any_more_change_nothing(short_dir: Path) -> None:
    files = make_certificate(short_dir, "main", "hub.test")
    tls = (f"--ssl-key={files.key}", f"--ssl-cert={files.cert}")
    async with chp(short_dir, *tls) as program:
        workers = program.workers()
        kept = files.key.read_bytes()
        files.key.write_text("nonsense")
        program.signal(signal.SIGUSR2)
        await program.said("reload_failed")
        assert "main.key" in program.log
        assert program.workers() == workers
        files.key.write_bytes(kept)
        await program.reload()
        await until("the old workers' end", lambda: not set(workers) & set(program.workers()))


async def test_a_signal_to_the_whole_group_is_one_signal(short_dir: Path) -> None:
    async with open_upstream() as upstream, chp(short_dir, "--workers", "2") as program:
        await routed(program, upstream)
        async with load_on(program.port) as load:
            await load.more(50)
            os.killpg(program.pid, signal.SIGHUP)
            await program.said(" reloaded ")
            await load.more(50)
        assert load.lost == []
        os.killpg(program.pid, signal.SIGINT)
        assert await program.ended() == 2

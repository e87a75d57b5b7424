"""WebSockets end to end: real clients and servers, and every way in which one side may leave."""

import asyncio
import hashlib
import os
import random
import socket
import struct
from pathlib import Path

import pytest
from proxy.engine.test_tunnel import HANDSHAKE, KEY, SWITCH, echo, open_tunnel
from proxy.running import Running, plain_route
from proxy.wire import Upstream, connect, eventually, ok, read_head, read_request
from websockets.asyncio.client import connect as open_websocket
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from carrel_shared.wire.routes import DeleteRoute, RouteChanges

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter


async def test_a_real_client_and_server_compress_fragment_and_ping(running: Running) -> None:
    """Subprotocol, permessage-deflate, fragments, pings and the reason for the end are theirs."""
    seen: list[str] = []

    async def answer(connection: ServerConnection) -> None:
        seen.append(
            connection.request.headers["Sec-WebSocket-Extensions"] if connection.request else ""
        )
        async for message in connection:
            if message == "ping":
                await (await connection.ping())
                await connection.send(["in ", "three ", "parts"])
            elif message == "leave":
                await connection.close(4002, "as you wish")
            else:
                await connection.send(message)

    async with serve(answer, "127.0.0.1", 0, subprotocols=["v1.kernel"]) as server:  # type: ignore[list-item]
        port = server.sockets[0].getsockname()[1]
        running.route(plain_route(f"http://127.0.0.1:{port}"))
        async with open_websocket(
            f"ws://127.0.0.1:{running.port}/x",
            subprotocols=["other", "v1.kernel"],  # type: ignore[list-item]
        ) as client:
            assert client.subprotocol == "v1.kernel"
            for message in ("hello " * 5000, os.urandom(100_000), ""):
                await client.send(message)
                assert await client.recv() == message
            await client.send("ping")
            assert await client.recv() == "in three parts"
            await (await client.ping())
            await client.send("leave")
            with pytest.raises(ConnectionClosed) as ended:
                await client.recv()
            assert ended.value.rcvd is not None
            assert (ended.value.rcvd.code, ended.value.rcvd.reason) == (4002, "as you wish")
    assert "permessage-deflate" in seen[0]


async def test_random_bytes_in_random_pieces_arrive_as_they_are(
    running: Running, upstream: Upstream
) -> None:
    chance = random.Random(7)  # noqa: S311
    there, back = (chance.randbytes(4 << 20) for _ in range(2))
    received: list[bytes] = []

    async def pour(writer: Writer, data: bytes) -> None:
        start = 0
        while start < len(data):
            size = chance.choice((1, 7, 1000, 65_536, 300_000))
            writer.write(data[start : start + size])
            await writer.drain()
            start += size

    async def script(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        writer.write(SWITCH)
        async with asyncio.TaskGroup() as group:
            group.create_task(pour(writer, back))
            received.append(await reader.readexactly(len(there)))
        await reader.read()

    upstream.script = script
    async with running.client() as client:
        await open_tunnel(client)
        async with asyncio.TaskGroup() as group:
            group.create_task(pour(client.writer, there))
            got = await client.reader.readexactly(len(back))
        await eventually(lambda: bool(received))
    assert hashlib.sha256(got).digest() == hashlib.sha256(back).digest()
    assert hashlib.sha256(received[0]).digest() == hashlib.sha256(there).digest()


async def test_what_is_offered_and_chosen_passes_as_it_is(
    running: Running, upstream: Upstream
) -> None:
    seen = []

    async def script(reader: Reader, writer: Writer) -> None:
        seen.append(await read_head(reader))
        more = b"Sec-WebSocket-Protocol: b\r\nSec-WebSocket-Extensions: x; a=1\r\n\r\n"
        writer.write(SWITCH[:-2] + more)
        await reader.read()

    upstream.script = script
    async with running.client() as client:
        client.get(
            "/ws",
            *HANDSHAKE,
            "Origin: https://elsewhere.test",
            "Sec-WebSocket-Protocol: a, b",
            "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, x",
        )
        reply = await client.head()
    assert seen[0].one("origin") == "https://elsewhere.test"
    assert seen[0].one("sec-websocket-protocol") == "a, b"
    assert (seen[0].one("sec-websocket-extensions") or "").endswith("client_max_window_bits, x")
    assert seen[0].one("sec-websocket-version") == "13"
    assert reply.one("sec-websocket-protocol") == "b"
    assert reply.one("sec-websocket-extensions") == "x; a=1"


@pytest.mark.parametrize("connection", ["UPGRADE", "close-not, Upgrade", "upgrade,keep-alive"])
async def test_case_and_order_are_the_clients(
    connection: str, running: Running, upstream: Upstream
) -> None:
    upstream.script = echo
    async with running.client() as client:
        client.get(
            "/ws",
            f"connection: {connection}",
            "UPGRADE: WebSocket",
            f"sec-websocket-key: {KEY}",
            "Sec-WebSocket-Version: 13",
        )
        assert (await client.head()).status == 101


async def test_a_handshake_of_old_http_is_refused(running: Running, upstream: Upstream) -> None:
    async with running.client() as client:
        lines = ["GET /ws HTTP/1.0", "Host: h", *HANDSHAKE, "", ""]
        client.send("\r\n".join(lines).encode())
        assert (await client.response()).status == 400
    assert upstream.connections == 0


def reset_at_close(writer: Writer) -> None:
    connected = writer.get_extra_info("socket")
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@pytest.mark.parametrize("who", ["client", "server"])
@pytest.mark.parametrize("how", ["reset", "close frame, then data", "half-close"])
async def test_either_side_may_leave_in_any_way(
    who: str, how: str, running: Running, upstream: Upstream
) -> None:
    leave = asyncio.Event()

    async def go(reader: Reader, writer: Writer) -> None:
        if how == "reset":
            reset_at_close(writer)
        elif how == "half-close":
            writer.write_eof()
        else:
            writer.write(b"\x88\x02\x03\xe8" + b"what comes after it")
            await writer.drain()
            writer.close()

    async def script(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        writer.write(SWITCH)
        if who == "server":
            await leave.wait()
            await go(reader, writer)
        await reader.read()

    upstream.script = script
    async with running.client() as client:
        await open_tunnel(client)
        leave.set()
        if who == "client":
            await go(client.reader, client.writer)
        else:
            await client.rest()
            client.writer.close()
        await asyncio.wait_for(upstream.closed.wait(), 60)
        await eventually(lambda: running.proxy.edge.connections == 0)


async def test_a_socket_of_a_removed_route_lives_until_its_server_ends(
    running: Running, upstream: Upstream
) -> None:
    """Removing a route takes no right away; what does is a revocation."""
    upstream.script = echo
    async with running.client() as client:
        await open_tunnel(client)
        running.proxy.table.change(
            RouteChanges(
                epoch="e",
                base=running.number,
                number=running.number + 1,
                changes=[DeleteRoute(prefix="/")],
            )
        )
        client.send(b"still")
        assert await client.reader.readexactly(5) == b"still"
        async with running.client() as other:
            assert (await other.ask("/")).status == 404


async def test_tabs_that_reconnect_to_a_stopped_server_leave_nothing(
    running: Running, short_dir: Path
) -> None:
    running.route(plain_route(f"unix:{short_dir}/nobody"))
    before = descriptors()
    for _ in range(10):
        async with asyncio.TaskGroup() as group:
            for _ in range(50):
                group.create_task(_try_once(running.port))
    await eventually(lambda: running.proxy.edge.connections == 0)
    await eventually(lambda: descriptors() <= before + 5)


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def _try_once(port: int) -> None:
    async with connect(port) as client:
        client.get("/api/kernels/1/channels", *HANDSHAKE)
        assert (await client.response()).status == 503


async def test_a_refusal_is_relayed_whole(running: Running, upstream: Upstream) -> None:
    upstream.respond = lambda _: ok(b"not you", "X-Why: no", status="403 Forbidden")
    async with running.client() as client:
        client.get("/ws", *HANDSHAKE)
        reply = await client.response()
        assert (reply.status, reply.one("x-why"), reply.body) == (403, "no", b"not you")
        assert await client.rest() == b""

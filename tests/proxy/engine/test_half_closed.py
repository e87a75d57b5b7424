"""Clients that shut down their sending side: those who wait get their answer, those who left do not
keep a target busy."""

import asyncio
import socket
import ssl
import struct
from pathlib import Path

import pytest
from proxy.authority import Authority
from proxy.engine.test_tunnel import HANDSHAKE, SWITCH
from proxy.hub import FakeHub
from proxy.running import Running, open_proxy, plain_route
from proxy.wire import Client, Script, Upstream, eventually, ok, open_upstream, read_request

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter


def late(go: asyncio.Event, reply: bytes) -> Script:
    """Return a script that answers when told to."""

    async def script(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        await go.wait()
        writer.write(reply)
        await reader.read()

    return script


async def silent(reader: Reader, writer: Writer) -> None:
    await read_request(reader)
    await reader.read()


def reset(client: Client) -> None:
    """Close a connection so that its peer gets a reset."""
    connected = client.writer.get_extra_info("socket")
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.writer.transport.abort()


async def ended(running: Running) -> None:
    """Wait until the proxy has seen the end of what a client sends."""
    await eventually(lambda: any(client._ended for client in running.proxy.edge._clients))


async def test_an_answer_still_comes_after_the_end_of_the_requests(
    running: Running, upstream: Upstream
) -> None:
    go = asyncio.Event()
    upstream.script = late(go, ok(b"late"))
    async with running.client() as client:
        client.get("/")
        client.writer.write_eof()
        await ended(running)
        running.proxy.deadlines.tick()
        go.set()
        assert await client.rest() == ok(b"late")
    await eventually(lambda: running.proxy.edge.connections == 0)


async def test_the_proxys_own_answer_comes_too(running: Running, upstream: Upstream) -> None:
    go = asyncio.Event()
    upstream.script = late(go, b"nonsense\r\n\r\n")
    async with running.client() as client:
        client.get("/")
        client.writer.write_eof()
        await ended(running)
        go.set()
        assert (await client.response()).status == 502


async def test_all_pipelined_requests_are_answered(running: Running, upstream: Upstream) -> None:
    upstream.respond = lambda request: ok(request.target.encode())
    async with running.client() as client:
        client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % n for n in range(200)))
        client.writer.write_eof()
        for number in range(200):
            assert (await client.response()).body == b"/%d" % number
        assert await client.rest() == b""


async def test_a_stream_goes_on_after_the_end_of_the_requests(
    running: Running, upstream: Upstream
) -> None:
    go = asyncio.Event()

    async def script(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        await go.wait()
        writer.write(b"3\r\ntwo\r\n0\r\n\r\n")
        await reader.read()

    upstream.script = script
    async with running.client() as client:
        client.get("/")
        await client.head()
        client.writer.write_eof()
        await ended(running)
        go.set()
        assert await client.rest() == b"3\r\none\r\n03\r\ntwo\r\n0\r\n\r\n"


async def test_a_message_that_ends_in_the_middle_is_a_400_and_ends_upstream(
    running: Running, upstream: Upstream
) -> None:
    upstream.script = silent
    async with running.client() as client:
        client.get("/", "Content-Length: 10", method="POST")
        client.send(b"half")
        await eventually(lambda: upstream.open == 1)
        client.writer.write_eof()
        assert (await client.response()).status == 400
        assert await client.rest() == b""
    await asyncio.wait_for(upstream.closed.wait(), 60)


async def test_a_pipelined_message_that_ends_in_the_middle_is_a_400(
    running: Running, upstream: Upstream
) -> None:
    go = asyncio.Event()

    async def script(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        await go.wait()
        writer.write(ok())
        await reader.read()

    upstream.script = script
    async with running.client() as client:
        client.get("/first")
        client.get("/second", "Content-Length: 10", method="POST")
        client.writer.write_eof()
        await ended(running)
        go.set()
        assert (await client.response()).status == 200
        assert (await client.response()).status == 400
        assert await client.rest() == b""


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"])
@pytest.mark.parametrize("leave", ["close", "reset"])
async def test_nobody_is_kept_busy_for_a_client_that_left(
    leave: str, begun: bytes, running: Running, upstream: Upstream
) -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        writer.write(begun)
        await reader.read()

    upstream.script = script
    async with running.client() as client:
        client.get("/")
        await eventually(lambda: upstream.open == 1)
        if begun:
            await client.head()
        if leave == "reset":
            reset(client)
    await asyncio.wait_for(upstream.closed.wait(), 60)
    await eventually(lambda: running.proxy.edge.connections == 0)


async def test_a_target_that_streams_for_ever_is_not_kept_for_a_client_that_left(
    running: Running, upstream: Upstream
) -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (1 << 40))
        while not writer.is_closing():
            writer.write(b"x" * 1000)
            await writer.drain()
            await asyncio.sleep(0.01)

    upstream.script = script
    async with running.client() as client:
        client.get("/")
        await client.head()
        await client.reader.readexactly(1000)
    await asyncio.wait_for(upstream.closed.wait(), 60)


async def test_a_socket_whose_client_ended_before_it_was_open(
    running: Running, upstream: Upstream
) -> None:
    async def answer_at_the_end(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        await eventually(lambda: any(client._ended for client in running.proxy.edge._clients))
        writer.write(SWITCH)
        writer.write(b"got " + await reader.read())

    upstream.script = answer_at_the_end
    async with running.client() as client:
        client.get("/ws", *HANDSHAKE)
        client.send(b"all")
        client.writer.write_eof()
        assert (await client.head()).status == 101
        assert await client.rest() == b"got all"


async def test_over_a_unix_socket_too(running: Running, short_dir: Path) -> None:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(short_dir / "public"))
    listening.listen()
    await running.proxy.edge.listen([listening])
    async with open_upstream(short_dir / "target") as upstream:
        running.route(plain_route(upstream.target))
        go = asyncio.Event()
        upstream.script = late(go, ok(b"late"))
        waits = Client(*await asyncio.open_unix_connection(short_dir / "public"))
        waits.get("/")
        waits.writer.write_eof()
        await ended(running)
        running.proxy.deadlines.tick()
        go.set()
        assert (await waits.response()).body == b"late"
        upstream.closed.clear()
        upstream.script = silent
        leaves = Client(*await asyncio.open_unix_connection(short_dir / "public"))
        leaves.get("/")
        await eventually(lambda: upstream.open == 1)
        await leaves.close()
        await asyncio.wait_for(upstream.closed.wait(), 60)
        await waits.close()


@pytest.mark.parametrize("opened", [False, True])
async def test_over_tls_the_end_is_the_end(
    opened: bool,
    short_dir: Path,
    hub: FakeHub,
    upstream: Upstream,
) -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        writer.write(SWITCH if opened else b"")
        await reader.read()

    upstream.script = script
    pair = Authority(short_dir).issue("localhost")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(pair.cert, pair.key)
    trusting = ssl.create_default_context(cafile=str(pair.ca))
    async with open_proxy(short_dir, hub, tls=tls) as running:
        running.route(plain_route(upstream.target))
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", running.port, ssl=trusting, server_hostname="localhost"
        )
        client = Client(reader, writer)
        client.get("/ws", *HANDSHAKE) if opened else client.get("/")
        await eventually(lambda: upstream.open == 1)
        if opened:
            assert (await client.head()).status == 101
        writer.close()
        await asyncio.wait_for(upstream.closed.wait(), 60)
        await eventually(lambda: running.proxy.edge.connections == 0)

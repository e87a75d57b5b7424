"""How many connections there may be: from one address, to one route, in all; and what becomes of
those for which there is no room."""

import asyncio
import json
import os
import resource
import socket
import ssl
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from proxy.certificates import make_certificate
from proxy.engine.test_tunnel import echo, open_tunnel
from proxy.hub import FakeHub
from proxy.running import Running, open_proxy, plain_route
from proxy.wire import Client, Upstream, connect, eventually, open_upstream, read_request

from carrel_proxy.engine.caps import Caps, counted_as
from carrel_proxy.tls import public_context

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (b"10.0.0.1", b"10.0.0.2", False),
        (b"2001:db8::1", b"2001:db8::ffff:1", True),
        (b"2001:db8::1", b"2001:db8:0:1::1", False),
        (b"fe80::1%eth0", b"fe80::2%eth0", True),
    ],
)
def test_an_ipv6_host_is_its_network(one: bytes, other: bytes, *, same: bool) -> None:
    assert (counted_as(one) == counted_as(other)) is same


def test_counts_go_back_to_nothing() -> None:
    caps = Caps(3, 2)
    assert [caps.enter(b"a"), caps.enter(b"a"), caps.enter(b"")] == [None] * 3
    assert caps.enter(b"b") == "there are too many connections"
    assert caps.enter(b"a") == "there are too many connections from this address"
    for address in (b"a", b"a", b"a", b"b", b""):
        caps.leave(address)
    assert caps.enter(b"a") is None


async def turned_away(client: Client) -> None:
    reply = await client.response()
    assert (reply.status, reply.one("connection")) == (503, "close")
    assert reply.one("retry-after")
    assert "too many connections" in json.loads(reply.body)["message"]
    assert await client.rest() == b""


async def test_one_address_has_so_many_and_no_more(
    short_dir: Path, hub: FakeHub, upstream: Upstream
) -> None:
    upstream.script = echo
    async with open_proxy(short_dir, hub, max_connections_per_address=3) as running:
        running.route(plain_route(upstream.target))
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(running.client()) for _ in range(3)]
            for client in clients[:2]:
                await open_tunnel(client)
            async with running.client() as client:
                await turned_away(client)
            async with connect(running.port, local="127.0.0.2") as other:
                await open_tunnel(other)
            await clients[0].close()
            await eventually(lambda: running.proxy.edge.connections == 3 - 1)
            async with running.client() as client:
                await open_tunnel(client)


async def test_who_shakes_hands_is_counted_too(
    short_dir: Path, hub: FakeHub, upstream: Upstream
) -> None:
    """D12: connections that never begin to speak TLS must not take up all there are."""
    tls = public_context([make_certificate(short_dir, "hub", "hub.test")])
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    settings: dict[str, Any] = {"max_connections_per_address": 2, "handshake_seconds": 600}
    async with open_proxy(short_dir, hub, tls=tls, **settings) as running:
        running.route(plain_route(upstream.target))
        edge = running.proxy.edge
        async with running.client() as one, running.client() as other:
            await eventually(lambda: len(edge.arriving) == 2)
            async with running.client() as third:
                assert await third.rest() == b""
            async with connect(running.port, local="127.0.0.2") as elsewhere:
                await elsewhere.writer.start_tls(trust)
                assert (await elsewhere.ask("/")).status == 200
            await other.close()
            await eventually(lambda: len(edge.arriving) == 1)
            async with running.client() as third:
                await third.writer.start_tls(trust)
                assert (await third.ask("/")).status == 200
                assert (len(edge.arriving), edge.connections) == (1, 1)
            await one.close()
        await eventually(lambda: not edge.arriving and not edge.connections)
        async with running.client() as one, running.client() as other:
            await one.writer.start_tls(trust)
            await other.writer.start_tls(trust)
            assert (await one.ask("/")).status == (await other.ask("/")).status == 200


async def test_proxies_before_this_one_bring_many_peoples_connections(
    short_dir: Path, hub: FakeHub, upstream: Upstream
) -> None:
    settings: dict[str, Any] = {
        "max_connections_per_address": 1,
        "trusted_peers": ["127.0.0.0/8"],
    }
    async with open_proxy(short_dir, hub, **settings) as running:
        running.route(plain_route(upstream.target))
        async with running.client() as one, running.client() as other:
            assert (await one.ask("/")).status == 200
            assert (await other.ask("/")).status == 200


async def test_one_route_cannot_take_all_there_is(
    short_dir: Path, hub: FakeHub, upstream: Upstream
) -> None:
    upstream.script = echo
    async with (
        open_proxy(short_dir, hub, max_connections_per_route=2) as running,
        open_upstream() as second,
        AsyncExitStack() as stack,
    ):
        running.route(plain_route(upstream.target, "/a/"), plain_route(second.target, "/b/"))
        clients = [await stack.enter_async_context(running.client()) for _ in range(3)]
        for client in clients[:2]:
            await open_tunnel(client, "/a/ws")
        full = await clients[2].ask("/a/x", "Accept: */*")
        assert (full.status, full.one("retry-after")) == (503, "5")
        assert (await clients[2].ask("/b/")).status == 200
        await clients[0].close()
        await eventually(lambda: upstream.open == 1)
        async with running.client() as client:
            await open_tunnel(client, "/a/ws")


@contextmanager
def few_descriptors(limit: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Use up all that may be open."""
    used: list[int] = []
    with few_descriptors(512):
        try:
            while True:
                used.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            pass
        try:
            yield
        finally:
            for descriptor in used:
                os.close(descriptor)


async def test_when_there_is_no_room_those_inside_are_served(
    short_dir: Path, hub: FakeHub, upstream: Upstream
) -> None:
    with few_descriptors(96):  # read when the proxy starts: room for 16 clients
        stack = AsyncExitStack()
        running = await stack.enter_async_context(open_proxy(short_dir, hub))
    async with stack:
        running.route(plain_route(upstream.target))
        inside = [await stack.enter_async_context(running.client()) for _ in range(16)]
        await eventually(lambda: running.proxy.edge.connections == 16)
        async with running.client() as client:
            await turned_away(client)
        assert (await inside[0].ask("/")).status == 200
        await inside[1].close()
        await eventually(lambda: running.proxy.edge.connections == 15)
        async with running.client() as client:
            assert (await client.ask("/")).status == 200


async def test_a_lack_of_descriptors_is_not_the_targets_fault(
    running: Running, upstream: Upstream
) -> None:
    async with running.client() as client:
        await eventually(lambda: running.proxy.edge.connections == 1)
        with no_descriptors():
            reply = await client.ask("/", "Accept: */*")
        assert (reply.status, json.loads(reply.body)["message"][:9]) == (503, "There are")
        assert (await client.ask("/")).status == 200


async def test_nobody_hangs_when_descriptors_run_out_and_then_all_are_served(
    running: Running, upstream: Upstream
) -> None:
    sockets = [socket.socket() for _ in range(10)]
    for one in sockets:
        one.setblocking(False)
    loop = asyncio.get_running_loop()
    with no_descriptors():
        for one in sockets:
            await loop.sock_connect(one, ("127.0.0.1", running.port))
        said = [await ask_or_be_refused(one) for one in sockets]
    assert b"" in said
    assert {reply[:13] for reply in said} <= {b"", b"HTTP/1.1 200 ", b"HTTP/1.1 503 "}
    for one in sockets:
        one.close()
    async with running.client() as client:
        assert (await client.ask("/")).status == 200


async def ask_or_be_refused(one: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(60):
            await loop.sock_sendall(one, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            return await loop.sock_recv(one, 100)
    except ConnectionError:
        return b""


async def test_many_slow_connections_leave_another_client_served(
    short_dir: Path, hub: FakeHub, upstream: Upstream
) -> None:
    async with (
        open_proxy(short_dir, hub, max_connections_per_address=20) as running,
        AsyncExitStack() as stack,
    ):
        running.route(plain_route(upstream.target))
        for _ in range(200):
            slow = await stack.enter_async_context(running.client())
            slow.send(b"GET / HT")
        await eventually(lambda: running.proxy.edge.connections <= 20)
        async with connect(running.port, local="127.0.0.2") as client:
            assert (await client.ask("/")).status == 200


async def test_ten_thousand_pipelined_requests_wait_in_the_clients_own_memory(
    running: Running, upstream: Upstream
) -> None:
    go = asyncio.Event()

    async def waits(reader: Reader, writer: Writer) -> None:
        while True:
            request = await read_request(reader)
            await go.wait()
            body = request.target.encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    upstream.script = waits
    async with running.client() as client:
        client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % n for n in range(10_000)))
        await eventually(lambda: any(c.paused for c in running.proxy.edge._clients))
        (connection,) = running.proxy.edge._clients
        assert len(connection._buffer) < 1 << 20
        go.set()
        for number in range(10_000):
            assert (await client.response()).body == b"/%d" % number


async def test_who_reads_no_answers_is_read_no_further(running: Running) -> None:
    running.route()
    request = b"GET /nothing HTTP/1.1\r\nHost: h\r\n\r\n"
    count = 0
    async with running.client() as client:
        transport = cast(asyncio.Transport, client.writer.transport)
        transport.pause_reading()
        await eventually(lambda: running.proxy.edge.connections == 1)
        (connection,) = running.proxy.edge._clients
        while not connection.paused:  # the kernel takes some of the answers first
            client.send(request * 1000)
            count += 1000
            assert count < 1_000_000
            await asyncio.sleep(0)
        assert len(connection._buffer) < 1 << 20
        transport.resume_reading()
        client.send(b"GET /last HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        assert (await client.rest()).count(b"HTTP/1.1 404 Not Found\r\n") == count + 1


async def test_a_head_may_be_larger_than_what_else_waits(
    short_dir: Path, hub: FakeHub, upstream: Upstream
) -> None:
    go = asyncio.Event()

    async def waits(reader: Reader, writer: Writer) -> None:
        seen = b""
        while not seen.endswith(b"\r\n\r\n"):
            seen += await reader.read(1 << 20)
        await go.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")

    upstream.script = waits
    async with open_proxy(short_dir, hub, max_head_bytes=2 << 20) as running:
        running.route(plain_route(upstream.target))
        async with running.client() as client:
            client.get("/")
            await eventually(lambda: upstream.connections == 1)
            client.get("/", *(f"X-{number}: {'a' * 16_000}" for number in range(90)))
            await eventually(lambda: any(one.paused for one in running.proxy.edge._clients))
            go.set()
            assert (await client.response()).status == 200
            assert (await client.response()).status == 200

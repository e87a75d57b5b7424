"""Time and size limits of clients, and what SIGTERM does to them."""

import asyncio
import os
import ssl
from pathlib import Path
from time import sleep

import pytest
from proxy.hub import FakeHub
from proxy.running import Running, open_proxy, plain_route
from proxy.wire import Client, Upstream, eventually, ok, read_head, read_request

from carrel_proxy.engine.deadlines import TICK_SECONDS
from carrel_shared.clock import ManualClock

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def timed(short_dir: Path, hub: FakeHub, upstream: Upstream, clock: ManualClock):  # type: ignore[no-untyped-def]
    async with open_proxy(short_dir, hub, clock=clock, response_seconds=100) as running:
        running.route(plain_route(upstream.target))
        yield running


def pass_time(timed: Running, clock: ManualClock, seconds: float) -> None:
    clock.advance(seconds)
    timed.proxy.deadlines.tick()


async def connected(timed: Running) -> None:
    await eventually(lambda: timed.proxy.edge.connections == 1)


async def test_a_silent_connection_is_closed(timed: Running, clock: ManualClock) -> None:
    async with timed.client() as client:
        await connected(timed)
        pass_time(timed, clock, 11)
        assert await client.rest() == b""


async def test_a_head_that_drips_is_a_408(timed: Running, clock: ManualClock) -> None:
    async with timed.client() as client:
        for byte in (b"G", b"E", b"T"):
            client.send(byte)
            await asyncio.sleep(0.02)
            pass_time(timed, clock, 3)
        client.send(b" ")
        await asyncio.sleep(0.02)
        pass_time(timed, clock, 3)
        assert (await client.response()).status == 408
        assert await client.rest() == b""


async def test_a_body_that_stops_is_a_408(
    timed: Running, clock: ManualClock, upstream: Upstream
) -> None:
    async with timed.client() as client:
        client.get("/", "Content-Length: 10", method="POST")
        await eventually(lambda: upstream.connections == 1)
        pass_time(timed, clock, 61)
        assert (await client.response()).status == 408
        assert await client.rest() == b""


async def test_an_unused_connection_is_closed(timed: Running, clock: ManualClock) -> None:
    async with timed.client() as client:
        await client.ask("/")
        pass_time(timed, clock, 74)
        await client.ask("/")
        pass_time(timed, clock, 76)
        assert await client.rest() == b""


async def test_a_target_that_never_answers_is_a_504(
    timed: Running, clock: ManualClock, upstream: Upstream
) -> None:
    async def silent(reader: Reader, writer: Writer) -> None:
        await reader.read()

    upstream.script = silent
    async with timed.client() as client:
        client.get("/")
        await eventually(lambda: upstream.open == 1)
        pass_time(timed, clock, 101)
        assert (await client.response()).status == 504
    await asyncio.wait_for(upstream.closed.wait(), 60)


async def test_a_response_that_flows_has_no_limit(
    timed: Running, clock: ManualClock, upstream: Upstream
) -> None:
    more = asyncio.Event()

    async def slow(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        await more.wait()
        writer.write(b"cd")

    upstream.script = slow
    async with timed.client() as client:
        client.get("/")
        await client.head()
        pass_time(timed, clock, 100_000)
        more.set()
        assert await client.reader.readexactly(4) == b"abcd"


async def test_a_pause_in_a_response_can_be_limited(
    short_dir: Path, hub: FakeHub, upstream: Upstream, clock: ManualClock
) -> None:
    more = asyncio.Event()

    async def slow(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab")
        await more.wait()
        writer.write(b"cd")
        await reader.read()

    upstream.script = slow
    async with open_proxy(short_dir, hub, clock=clock, pause_seconds=30) as running:
        running.route(plain_route(upstream.target))
        async with running.client() as client:
            client.get("/")
            await client.head()
            assert await client.reader.readexactly(2) == b"ab"
            pass_time(running, clock, 29)
            more.set()
            assert await client.reader.readexactly(2) == b"cd"
            pass_time(running, clock, 29)
            assert upstream.open == 1
            pass_time(running, clock, 2)
            assert await client.rest() == b""
    await asyncio.wait_for(upstream.closed.wait(), 60)


async def test_a_body_that_the_target_does_not_take_is_not_the_clients_fault(
    timed: Running, clock: ManualClock, upstream: Upstream
) -> None:
    async def takes_nothing(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        await asyncio.Event().wait()

    upstream.script = takes_nothing
    async with timed.client() as client:
        client.get("/", f"Content-Length: {1 << 30}", method="POST")
        client.send(b"x" * (32 << 20))
        await eventually(lambda: any(c.paused for c in timed.proxy.edge._clients))
        pass_time(timed, clock, 61)
        assert timed.proxy.edge.connections == 1
        pass_time(timed, clock, 40)
        assert (await client.response()).status == 504


async def test_a_handshake_that_never_ends_is_given_up(
    short_dir: Path, hub: FakeHub, upstream: Upstream
) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    async with (
        open_proxy(short_dir, hub, tls=tls, handshake_seconds=0.2) as running,
        running.client() as client,
    ):
        assert await client.rest() == b""


async def test_a_client_that_reads_nothing_is_cut_at_last(
    timed: Running, clock: ManualClock, upstream: Upstream
) -> None:
    upstream.respond = lambda _: ok(b"x" * (32 << 20))
    async with timed.client() as client:
        client.get("/")
        await client.head()
        await eventually(lambda: any(c._stalled for c in timed.proxy.edge._clients))
        pass_time(timed, clock, 301)
        await eventually(lambda: timed.proxy.edge.connections == 0)


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: h\r\n\r\n", 414),
        (b"GET /" + b"a" * 70_000, 414),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 40_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: h\r\n" + b"X: a\r\n" * 100 + b"\r\n", 431),
    ],
)
async def test_a_head_that_is_too_large_is_refused(
    raw: bytes, status: int, running: Running, upstream: Upstream
) -> None:
    for size in (1 << 20, 4096):
        async with running.client() as client:
            await client.send_in_pieces(raw, size)
            assert (await client.response()).status == status
            assert await client.rest() == b""
    assert upstream.connections == 0


async def test_what_came_while_the_process_stood_still_is_not_late(
    timed: Running, clock: ManualClock, upstream: Upstream
) -> None:
    """Stopped and continued, a proxy finds what was sent meanwhile and limits that have passed."""
    upstream.respond = lambda request: ok(request.body)
    async with timed.client() as idle, timed.client() as posts:
        assert (await idle.ask("/")).status == 200
        posts.get("/", "Content-Length: 4", method="POST")
        posts.send(b"ha")
        await eventually(lambda: bool(timed.proxy.edge.exchanges))
        clock.advance(90)
        send_now(idle, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        send_now(posts, b"lf")
        # The loop stands still: then both its timer and its sockets are ready.
        sleep(2 * TICK_SECONDS)  # noqa: ASYNC251
        assert (await idle.response()).status == 200
        assert (await posts.response()).body == b"half"


def send_now(client: Client, data: bytes) -> None:
    """Send past the loop, which would wait until it is its turn."""
    os.write(client.writer.get_extra_info("socket").fileno(), data)


async def test_running_requests_may_finish_and_no_more_begin(
    short_dir: Path, hub: FakeHub, upstream: Upstream
) -> None:
    finish = asyncio.Event()

    async def slow(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        await finish.wait()
        writer.write(ok(b"made it"))

    upstream.script = slow
    async with open_proxy(short_dir, hub, drain_seconds=5) as running:
        running.route(plain_route(upstream.target))
        async with running.client() as busy, running.client() as idle:
            busy.get("/")
            await eventually(lambda: upstream.open == 1)
            running.proxy.edge.stop_listening()
            finish.set()
            reply = await busy.response()
            assert (reply.body, reply.one("connection")) == (b"made it", "close")
            assert await idle.rest() == b""
            with pytest.raises(ConnectionRefusedError):
                async with running.client():
                    pass


async def test_what_does_not_finish_is_cut(
    short_dir: Path, hub: FakeHub, upstream: Upstream
) -> None:
    async def silent(reader: Reader, writer: Writer) -> None:
        await reader.read()

    upstream.script = silent
    async with open_proxy(short_dir, hub, drain_seconds=0.1) as running:
        running.route(plain_route(upstream.target))
        async with running.client() as client:
            client.get("/")
            await eventually(lambda: upstream.open == 1)
            await running.proxy.edge.drain(0.1)
            assert await client.rest() == b""

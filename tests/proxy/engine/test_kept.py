"""Connections that nobody used for a while: kept, for what can be sent again, and not for ever."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from proxy.hub import FakeHub
from proxy.running import Running, open_proxy, plain_route
from proxy.wire import Upstream, eventually, ok, open_upstream, read_request

from carrel_proxy.engine.counters import Counters
from carrel_proxy.engine.deadlines import Deadlines
from carrel_proxy.engine.kept import MOST_KEPT_EACH, Kept
from carrel_proxy.engine.upstream import Pool
from carrel_shared.addresses import TcpAddress
from carrel_shared.clock import ManualClock


@dataclass
class Kept60:
    """A proxy with the usual limits, and a target."""

    running: Running
    upstream: Upstream
    clock: ManualClock

    def pass_seconds(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.running.proxy.deadlines.tick()

    async def ask(self, method: str = "GET") -> int:
        """Ask over a connection of one's own; return the status."""
        async with self.running.client() as client:
            client.get("/", *(["Content-Length: 2"] if method == "POST" else []), method=method)
            client.send(b"ab" if method == "POST" else b"")
            return (await client.response(method)).status


@pytest.fixture
async def waiting(short_dir: Path, hub: FakeHub) -> AsyncIterator[Kept60]:
    """A target to which one connection is open that nobody used for five seconds."""
    clock = ManualClock()
    async with open_upstream() as upstream, open_proxy(short_dir, hub, clock=clock) as running:
        running.route(plain_route(upstream.target))
        found = Kept60(running, upstream, clock)
        assert await found.ask() == 200
        found.pass_seconds(5)
        yield found


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_what_can_be_repeated_takes_a_connection_that_waited(
    method: str, waiting: Kept60
) -> None:
    assert await waiting.ask(method) == 200
    assert waiting.upstream.connections == 1


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "PATCH"])
async def test_what_cannot_takes_a_new_one(method: str, waiting: Kept60) -> None:
    assert await waiting.ask(method) == 200
    assert waiting.upstream.connections == 2
    assert await waiting.ask(method) == 200  # which is fresh
    assert waiting.upstream.connections == 2


async def test_a_post_is_not_lost_at_a_target_that_closes_what_nobody_used(
    waiting: Kept60,
) -> None:
    """It closes as Node's servers do: when it was about to read the request."""
    served = asyncio.Event()

    async def target(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await read_request(reader)
        waiting.upstream.requests.append(request)
        writer.write(ok())
        await reader.read(1)  # something comes, and it hangs up all the same
        served.set()
        writer.transport.abort()

    waiting.upstream.script = target
    assert await waiting.ask("POST") == 200
    waiting.pass_seconds(5)
    before = len(waiting.upstream.requests)
    assert await waiting.ask("POST") == 200
    assert len(waiting.upstream.requests) == before + 1
    # A GET meets the same, and is sent again.
    waiting.pass_seconds(5)
    assert await waiting.ask("GET") == 200
    assert served.is_set()
    assert waiting.running.proxy.counters.retries == 1


async def test_it_ends_after_a_minute(waiting: Kept60) -> None:
    waiting.pass_seconds(54)
    assert waiting.upstream.open == 1
    waiting.pass_seconds(1)
    await eventually(lambda: waiting.upstream.open == 0)
    assert await waiting.ask() == 200
    assert waiting.upstream.connections == 2


async def test_use_makes_it_as_good_as_new(waiting: Kept60) -> None:
    assert await waiting.ask() == 200
    assert await waiting.ask("POST") == 200
    waiting.pass_seconds(5)
    waiting.pass_seconds(54)
    assert (waiting.upstream.connections, waiting.upstream.open) == (1, 1)


async def test_what_the_target_closes_is_forgotten(waiting: Kept60) -> None:
    (pool,) = waiting.running.proxy.table.routes["/"].pools
    (connection,) = pool._idle
    connection.transport.close()
    await eventually(lambda: not pool.open)
    assert not len(pool._kept)
    assert await waiting.ask() == 200


async def test_few_are_kept_of_many(waiting: Kept60) -> None:
    came, everybody = 0, asyncio.Event()

    async def target(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal came
        await read_request(reader)
        came += 1
        if came == MOST_KEPT_EACH + 3:
            everybody.set()
        await everybody.wait()
        writer.write(ok())
        await reader.read()

    waiting.upstream.script = target
    waiting.pass_seconds(60)
    await eventually(lambda: waiting.upstream.open == 0)
    async with asyncio.TaskGroup() as group:
        for _ in range(MOST_KEPT_EACH + 3):
            group.create_task(waiting.ask())
    assert waiting.upstream.open == MOST_KEPT_EACH + 3
    waiting.pass_seconds(5)
    await eventually(lambda: waiting.upstream.open == MOST_KEPT_EACH)


async def test_of_all_together_the_oldest_end_first() -> None:
    clock, counters = ManualClock(), Counters()
    deadlines, kept = Deadlines(clock), Kept(60, most=2)
    async with AsyncExitStack() as stack:
        upstreams = [await stack.enter_async_context(open_upstream()) for _ in range(4)]
        for upstream in upstreams:
            port = int(upstream.target.rpartition(":")[2])
            pool = Pool(
                TcpAddress("127.0.0.1", port),
                None,
                deadlines,
                connect_seconds=5,
                idle_seconds=4,
                counters=counters,
                kept=kept,
            )
            (await pool.connect()).release(reusable=True)
            clock.advance(5)
            deadlines.tick()
        await eventually(lambda: [one.open for one in upstreams] == [0, 0, 1, 1])
        kept.shrink_to(1)  # as clients have it who need the room
        await eventually(lambda: [one.open for one in upstreams] == [0, 0, 0, 1])
        kept.shrink_to(0)
        await eventually(lambda: not counters.upstream_opened - counters.upstream_closed)


async def test_nothing_is_kept_where_that_is_set(short_dir: Path, hub: FakeHub) -> None:
    clock = ManualClock()
    async with (
        open_upstream() as upstream,
        open_proxy(short_dir, hub, clock=clock, upstream_kept_seconds=0) as running,
    ):
        running.route(plain_route(upstream.target))
        found = Kept60(running, upstream, clock)
        assert await found.ask() == 200
        found.pass_seconds(5)
        await eventually(lambda: upstream.open == 0)

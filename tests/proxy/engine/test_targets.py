"""Several targets of one route, and connections that end at the moment they are used again."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace
from proxy.hub import FakeHub
from proxy.running import Running, open_proxy, plain_route
from proxy.wire import Client, Message, Upstream, eventually, ok, open_upstream, read_request

from carrel_proxy.engine.counters import Counters
from carrel_proxy.engine.deadlines import Deadlines
from carrel_proxy.engine.routes import in_order
from carrel_proxy.engine.upstream import Pool
from carrel_shared.addresses import TcpAddress
from carrel_shared.clock import SystemClock

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter


@asynccontextmanager
async def replicas(running: Running, count: int = 2) -> AsyncIterator[list[Upstream]]:
    async with AsyncExitStack() as stack:
        made = [await stack.enter_async_context(open_upstream()) for _ in range(count)]
        for number, upstream in enumerate(made):
            upstream.respond = lambda _, number=number: ok(str(number).encode())  # type: ignore[misc]
        targets = [upstream.target for upstream in made]
        running.route(replace(plain_route(targets[0]), targets=targets))
        yield made


def pools(running: Running) -> list[Pool]:
    route = running.proxy.dispatcher.routes.match(b"hub.test", b"/")
    assert route is not None
    return route.pools


def draining(request: Message) -> bytes:
    return ok(b"busy", "X-Carrel-Draining: 1", "Connection: close", status="503 Ending")


async def answered_by(client: Client, times: int = 1, method: str = "GET") -> Counter[bytes]:
    return Counter([(await client.ask("/", method=method)).body for _ in range(times)])


async def test_a_quiet_route_uses_all_its_targets(running: Running) -> None:
    async with replicas(running, 3), running.client() as client:
        assert await answered_by(client, 30) == {b"0": 10, b"1": 10, b"2": 10}


async def test_the_target_with_the_fewest_connections_is_taken(running: Running) -> None:
    async with replicas(running) as (slow, _), AsyncExitStack() as stack:
        held = asyncio.Event()

        async def hold(reader: Reader, writer: Writer) -> None:
            slow.requests.append(await read_request(reader))
            await held.wait()
            writer.write(ok(b"slow"))

        slow.script = hold
        waiting = [await stack.enter_async_context(running.client()) for _ in range(2)]
        for client in waiting:
            client.get("/")
        await eventually(lambda: len(slow.requests) == 1)
        client = await stack.enter_async_context(running.client())
        assert await answered_by(client, 8) == {b"1": 8}
        held.set()
        assert b"slow" in {(await client.response()).body for client in waiting}


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE"])
async def test_a_draining_target_is_passed_over(running: Running, method: str) -> None:
    async with replicas(running) as (ending, other), running.client() as client:
        ending.respond = draining
        statuses = [(await client.ask("/", method=method)).status for _ in range(10)]
        assert statuses == [200] * 10
        assert (len(ending.requests), len(other.requests)) == (1, 10)


async def test_a_post_is_not_sent_to_another_target(running: Running) -> None:
    async with replicas(running) as (ending, other), running.client() as client:
        ending.respond = draining
        statuses = [
            (await client.ask("/", "Content-Length: 0", method="POST")).status for _ in range(10)
        ]
        assert sorted(statuses) == [200] * 9 + [503]
        assert len(ending.requests) + len(other.requests) == 10


async def test_a_target_that_answers_while_it_ends_is_used_no_more(running: Running) -> None:
    async with replicas(running) as (ending, _), running.client() as client:
        ending.respond = lambda _: ok(b"last", "X-Carrel-Draining: 1")
        replies = [await client.ask("/", "Content-Length: 0", method="POST") for _ in range(10)]
        assert Counter(reply.body for reply in replies) == {b"last": 1, b"1": 9}
        assert [reply.one("x-carrel-draining") for reply in replies] == [None] * 10
        await eventually(lambda: ending.open == 0)


async def test_the_last_target_is_never_passed_over(running: Running) -> None:
    async with replicas(running) as both, running.client() as client:
        for upstream in both:
            upstream.respond = draining
        assert (await client.ask("/")).body == b"busy"
        both[0].respond = lambda _: ok(b"back")
        assert await answered_by(client, 4) == {b"back": 4}


async def test_the_only_target_may_say_that_it_ends(running: Running, upstream: Upstream) -> None:
    upstream.respond = draining
    async with running.client() as client:
        assert [(await client.ask("/")).status for _ in range(2)] == [503, 503]


async def test_a_target_that_ends_without_an_answer_is_passed_over(running: Running) -> None:
    async with replicas(running) as (dying, other), running.client() as client:

        async def dies(reader: Reader, writer: Writer) -> None:
            dying.requests.append(await read_request(reader))

        dying.script = dies
        assert await answered_by(client, 10) == {b"1": 10}
        assert (len(dying.requests), len(other.requests)) == (1, 10)


async def test_a_stale_connection_counts_for_no_try(running: Running) -> None:
    """A target that is killed ends what waited, and may still accept before it is gone."""
    async with replicas(running) as (killed, other), running.client() as client:
        dead = asyncio.Event()

        async def dies(reader: Reader, writer: Writer) -> None:
            while not dead.is_set():
                killed.requests.append(await read_request(reader))
                if len(killed.requests) == 1:
                    writer.write(ok(b"0"))
                else:
                    dead.set()

        killed.script = dies
        assert await answered_by(client, 10) == {b"0": 1, b"1": 9}
        assert len(other.requests) == 9


async def test_a_request_that_ends_every_target_is_given_up(running: Running) -> None:
    async with replicas(running, 3) as all_three, running.client() as client:

        async def dies(reader: Reader, writer: Writer) -> None:
            all_three[0].requests.append(await read_request(reader))

        for upstream in all_three:
            upstream.script = dies
        assert (await client.ask("/")).status == 503
        assert len(all_three[0].requests) == 3


def test_an_ejected_target_is_away_for_longer_each_time_and_back_at_once() -> None:
    deadlines = Deadlines(SystemClock())
    pool, other = (
        Pool(
            TcpAddress("127.0.0.1", port),
            None,
            deadlines,
            connect_seconds=1,
            idle_seconds=1,
            counters=Counters(),
        )
        for port in (1, 2)
    )
    seen = []
    for _ in range(6):
        for _ in range(20):  # what fails together counts once
            pool.eject()
        seen.append(round(pool.away_until - deadlines.now, 6))
        assert in_order([pool, other], deadlines.now) == [other, pool]
        deadlines.now = pool.away_until
        assert in_order([pool, other], deadlines.now) == [pool, other]
        pool.probe()
        assert in_order([pool, other], deadlines.now) == [other, pool]
        deadlines.now = pool.away_until
    assert seen == pytest.approx([5, 10, 20, 40, 60, 60])
    pool.readmit()
    pool.eject()
    assert round(pool.away_until - deadlines.now, 6) == 5


async def test_a_target_that_is_back_is_used_after_its_time(running: Running) -> None:
    async with replicas(running) as (first, _), running.client() as client:
        first.respond = draining
        await answered_by(client, 4)
        first.respond = lambda _: ok(b"0")
        assert await answered_by(client, 4) == {b"1": 4}
        for pool in pools(running):
            pool.away_until = 0.0
        assert await answered_by(client, 8) == {b"0": 4, b"1": 4}


# --- connections that end when they are used again ---


class Fickle:
    """A target that ends each connection at a time of its own, without saying so before."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 - the same each time, on purpose
        self.delivered: Counter[str] = Counter()

    async def __call__(self, reader: Reader, writer: Writer) -> None:
        for _ in range(self.random.randrange(1, 4)):
            request = await read_request(reader)
            self.delivered[request.method + request.target] += 1
            writer.write(ok(request.target.encode()))
        for _ in range(self.random.randrange(6)):
            await asyncio.sleep(0)
        if self.random.random() < 0.5:
            writer.transport.abort()


async def ask_many(running: Running, method: str, name: int, times: int) -> dict[str, int]:
    statuses = {}
    fields = ("Content-Length: 0",) if method == "POST" else ()
    async with running.client() as client:
        for number in range(times):
            target = f"/{name}-{number}"
            reply = await client.ask(target, *fields, method=method)
            statuses[method + target] = reply.status
            assert reply.body == target.encode() or reply.status != 200
    return statuses


async def ask_from_many(running: Running, method: str, clients: int, times: int) -> dict[str, int]:
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(ask_many(running, method, name, times)) for name in range(clients)
        ]
    return {target: status for task in tasks for target, status in task.result().items()}


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_no_get_fails_when_idle_connections_end(
    kind: str, short_dir: Path, hub: FakeHub
) -> None:
    fickle = Fickle(1)
    path = short_dir / "up.sock" if kind == "unix" else None
    async with open_proxy(short_dir, hub) as running, open_upstream(path) as upstream:
        upstream.script = fickle
        running.route(plain_route(upstream.target))
        statuses = await ask_from_many(running, "GET", 16, 250)
        assert set(statuses.values()) == {200}
        assert upstream.connections < 4000  # connections were used again, which is what is tested


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_no_post_is_delivered_twice_when_idle_connections_end(
    kind: str, short_dir: Path, hub: FakeHub
) -> None:
    fickle = Fickle(2)
    path = short_dir / "up.sock" if kind == "unix" else None
    async with open_proxy(short_dir, hub) as running, open_upstream(path) as upstream:
        upstream.script = fickle
        running.route(plain_route(upstream.target))
        statuses = await ask_from_many(running, "POST", 16, 250)
    posts = {what: times for what, times in fickle.delivered.items() if what.startswith("POST")}
    assert set(posts.values()) == {1}
    assert set(statuses.values()) <= {200, 502, 503}
    taken = {target for target, status in statuses.items() if status == 200}
    assert taken <= set(posts)
    assert len(taken) > len(statuses) / 2

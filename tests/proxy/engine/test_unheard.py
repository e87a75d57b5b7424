"""Machines that vanish while connections to them wait; `test_several_hosts` cuts a real cable."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from proxy.hub import FakeHub
from proxy.running import Running, open_proxy, plain_route
from proxy.wire import Client, Upstream, eventually, ok, open_upstream, read_request

from carrel_proxy.engine import unheard, upstream
from carrel_shared.clock import ManualClock

CONNECT_SECONDS = 5


@dataclass
class Elsewhere:
    """A proxy and a target that passes for one on another machine.

    Its first connection, which waits in the proxy's pool, answers nothing more.
    """

    running: Running
    target: Upstream
    clock: ManualClock

    def pass_seconds(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.running.proxy.deadlines.tick()

    async def ask(self, client: Client, method: str) -> None:
        """Send a request that arrives at the connection that waits."""
        client.get("/", *(["Content-Length: 2"] if method == "POST" else []), method=method)
        client.send(b"ab" if method == "POST" else b"")
        await eventually(lambda: len(self.target.requests) == 2)


@pytest.fixture
async def elsewhere(
    short_dir: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Elsewhere]:
    monkeypatch.setattr(upstream, "_is_here", lambda _: False)
    clock = ManualClock()
    async with (
        open_upstream() as target,
        open_proxy(short_dir, hub, clock=clock, connect_seconds=CONNECT_SECONDS) as running,
    ):

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            first = not target.requests
            while True:
                target.requests.append(await read_request(reader))
                if not first or len(target.requests) == 1:
                    writer.write(ok())

        target.script = script
        running.route(plain_route(target.target))
        async with running.client() as client:
            assert (await client.ask("/")).status == 200
        yield Elsewhere(running, target, clock)


@pytest.fixture
def vanished(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is acknowledged any more."""
    monkeypatch.setattr(unheard, "acknowledged", lambda _: 100)


@pytest.mark.usefixtures("vanished")
async def test_a_request_that_does_not_arrive_is_sent_again(elsewhere: Elsewhere) -> None:
    async with elsewhere.running.client() as client:
        await elsewhere.ask(client, "GET")
        elsewhere.pass_seconds(CONNECT_SECONDS)
        assert elsewhere.target.connections == 1
        elsewhere.pass_seconds(1)
        assert (await client.response()).status == 200
    assert elsewhere.target.connections == 2


@pytest.mark.usefixtures("vanished")
async def test_what_cannot_be_sent_again_is_answered(elsewhere: Elsewhere) -> None:
    async with elsewhere.running.client() as client:
        await elsewhere.ask(client, "POST")
        elsewhere.pass_seconds(CONNECT_SECONDS + 1)
        assert (await client.response("POST")).status == 503
    assert elsewhere.target.connections == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_target_that_thinks_for_long_has_its_time(
    method: str, elsewhere: Elsewhere
) -> None:
    (pool,) = elsewhere.running.proxy.table.routes["/"].pools
    (waiting,) = pool._idle
    before = unheard.acknowledged(waiting.transport)
    async with elsewhere.running.client() as client:
        await elsewhere.ask(client, method)
        await eventually(lambda: unheard.acknowledged(waiting.transport) != before)
        for _ in range(4):
            elsewhere.pass_seconds(CONNECT_SECONDS)
        assert (elsewhere.target.connections, elsewhere.target.open) == (1, 1)
    assert not elsewhere.running.proxy.counters.retries


async def test_nobody_looks_once_nothing_is_left_to_look_at(elsewhere: Elsewhere) -> None:
    async with elsewhere.running.client() as client:
        await elsewhere.ask(client, "GET")
        (pool,) = elsewhere.running.proxy.table.routes["/"].pools
        watched = pool._unheard
        assert watched in elsewhere.running.proxy.deadlines._timed
        elsewhere.pass_seconds(CONNECT_SECONDS + 1)
        assert watched not in elsewhere.running.proxy.deadlines._timed

"""More starts than may be under way wait for their turn, in the order in which they came."""

import json
from collections.abc import AsyncIterator

import pytest
from hub.fakes import FakeAgent
from hub.world import World, open_world

from carrel_hub.db.models import Server
from carrel_hub.errors import TooManyRequestsError
from carrel_hub.spawns.line import let_in
from carrel_hub.spawns.reconciler import Reconciler
from carrel_hub.users.progress import progress_stream
from carrel_hub.users.waiting import wait_for_server
from carrel_shared.clock import SystemClock
from carrel_shared.wire.servers import ServerState

LONG = 30.0


@pytest.fixture
async def narrow() -> AsyncIterator[World]:
    """A hub that lets two starts in at once, and whose agent takes its time."""
    async with open_world(agent=FakeAgent(instant=False), concurrent_spawn_limit=2) as world:
        await world.report()
        yield world


async def line(world: World, *names: str) -> list[Server]:
    """Ask for these people's servers, one after the other."""
    rows = []
    for name in names:
        rows.append(await world.start(name))
        world.clock.advance(1)
    return rows


async def test_starts_are_let_in_by_arrival_as_others_come_to_something(narrow: World) -> None:
    a, b, c, d, e = await line(narrow, "anna", "ben", "cleo", "dora", "emil")
    for row in (a, b, c, d, e):
        await narrow.drive(row)
    assert narrow.agent.launches.keys() == {(a.id, 1), (b.id, 1)}
    assert (await narrow.row(c)).progress_message == "Waiting for its turn to start"
    assert await narrow.events(c) == ["server.created", "server.requested", "server.waiting"]
    assert await let_in(narrow.hub) == ([], 3), "there is no room"

    await narrow.stop(a)
    await narrow.drive(a)
    assert await let_in(narrow.hub) == ([c.id], 2)
    narrow.agent.put(b.id, 1, ServerState.READY)
    await narrow.report()
    await narrow.settle(b)
    assert await let_in(narrow.hub) == ([d.id], 1)


async def test_a_start_that_is_cancelled_leaves_the_line(narrow: World) -> None:
    _, _, c, d = await line(narrow, "anna", "ben", "cleo", "dora")
    assert (await narrow.hub.line.standing(narrow.hub, d)).place == 2  # type: ignore[union-attr]
    await narrow.stop(c)
    narrow.clock.advance(2)
    assert (await narrow.row(c)).state == "stopped"
    assert await narrow.hub.line.standing(narrow.hub, await narrow.row(c)) is None
    standing = await narrow.hub.line.standing(narrow.hub, d)
    assert standing is not None
    assert (standing.place, standing.of) == (1, 1)


async def test_whoever_comes_while_others_wait_goes_behind_them(narrow: World) -> None:
    a, _, c = await line(narrow, "anna", "ben", "cleo")
    await narrow.stop(a)
    [d] = await line(narrow, "dora")  # there is room, and it is not hers
    assert d.admitted_at is None
    assert await let_in(narrow.hub) == ([c.id], 1)


async def test_no_time_limit_runs_while_a_start_waits(narrow: World) -> None:
    a, _, c = await line(narrow, "anna", "ben", "cleo")
    narrow.clock.advance(10_000)
    assert (await narrow.drive(c)).state == "queued"
    await narrow.stop(a)
    await let_in(narrow.hub)
    await narrow.report()
    narrow.clock.advance(30)
    assert (await narrow.drive(c)).state == "starting"


async def test_the_line_is_told_with_place_and_estimate(narrow: World) -> None:
    a, b = await line(narrow, "anna", "ben")
    for row in (a, b):
        await narrow.drive(row)
    narrow.clock.advance(28)
    for row in (a, b):
        narrow.agent.put(row.id, 1, ServerState.READY)
    await narrow.report()
    for row in (a, b):
        await narrow.settle(row)  # which took 30 and 29 seconds
    rows = await line(narrow, "cleo", "dora", "emil", "fritz")
    user = await narrow.user("fritz")
    stream = progress_stream(narrow.hub, user, rows[-1])
    frames = [json.loads(await anext_event(stream)) for _ in range(2)]
    await stream.aclose()
    assert frames[1] == {
        "progress": 0,
        "message": "Waiting for its turn to start: number 2 of 2, about 30 seconds to go",
        "queue": {"place": 2, "of": 2, "seconds": 30},
    }


async def anext_event(stream: AsyncIterator[bytes]) -> bytes:
    """Return the data of the next event, past what only keeps the stream alive."""
    while True:
        frame = await anext(stream)
        if frame.startswith(b"data: "):
            return frame.removeprefix(b"data: ")


@pytest.mark.parametrize("most", [0, 1])
async def test_starts_are_refused_only_when_the_line_has_a_limit_and_is_full(most: int) -> None:
    async with open_world(concurrent_spawn_limit=1, spawn_queue_limit=most) as world:
        await line(world, "anna", *["ben"][:most])
        with pytest.raises(TooManyRequestsError) as refused:
            await world.start("cleo")
        assert 30 <= int(refused.value.headers["Retry-After"]) <= 60
        async with world.hub.database.read() as session:
            assert await session.get(Server, "cleo") is None
        assert (await world.start("anna")).state == "queued", "it is in already"


async def test_a_line_survives_the_restart_of_the_hub() -> None:
    agent = FakeAgent(instant=False)
    async with open_world(clock=SystemClock(), agent=agent, concurrent_spawn_limit=1) as world:
        await world.report()
        rows = [await world.start(name) for name in ("anna", "ben", "cleo")]
        await world.drive(rows[0])
        agent.instant = True
        agent.put(rows[0].id, 1, ServerState.READY)
        # Another process: it knows nothing but the rows.
        world.hub.tasks.start(Reconciler(world.hub).run(), name="reconciler")
        world.hub.tasks.start(world.pusher.run(), name="push")
        await world.report()
        for row in rows:
            found = await wait_for_server(
                world.hub, row.id, lambda now: now.state == "ready", seconds=LONG
            )
            assert found is not None
            assert found.state == "ready"
        assert [spec.user for spec in agent.specs] == ["anna", "ben", "cleo"]

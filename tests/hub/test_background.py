"""What the hub does by itself goes on, whatever breaks."""

import asyncio

import pytest
from hub.world import World
from structlog.testing import capture_logs

from carrel_hub import background
from carrel_hub.background import keep, start_background
from carrel_hub.routing.push import Pusher
from carrel_hub.spawns.reconciler import Reconciler


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "backoff_seconds", lambda *_, **__: 0)


async def test_what_breaks_is_begun_anew_and_said() -> None:
    done = asyncio.Event()
    tries = 0

    async def work() -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise RuntimeError("a row that nobody can read")
        done.set()
        await asyncio.Event().wait()

    with capture_logs() as lines:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(keep(work, "work"))
            await done.wait()
            task.cancel()
    assert [(line["event"], line["task"]) for line in lines] == [("background_broken", "work")] * 2


@pytest.mark.parametrize(("what", "method"), [(Reconciler, "_scan"), (Pusher, "turn")])
async def test_servers_and_routes_outlive_a_fault_nobody_thought_of(
    what: type, method: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    again, broken = asyncio.Event(), 0
    good = getattr(what, method)

    async def once(self: object) -> object:
        nonlocal broken
        broken += 1
        if broken == 1:
            raise ValueError("a cell that is no JSON")
        again.set()
        return await good(self)

    monkeypatch.setattr(what, method, once)
    await start_background(world.hub)
    await again.wait()
    assert len(world.hub.database._on_route_change) <= len(world.hub.settings.proxies)

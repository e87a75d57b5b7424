"""A hub that is killed in the middle of things, and the one that comes after it."""

import asyncio
import contextlib
import signal

import httpx
import pytest
from hub.processes import Installation, installation

SPAWN_POINTS = (
    "hub.spawn.requested",
    "hub.spawn.placed",
    "hub.spawn.sent",
    "hub.spawn.routed",
    "hub.spawn.pushed",
)
STOP_POINTS = ("hub.stop.requested", "hub.stop.sent")


async def _ask(made: Installation, method: str) -> None:
    """Send a request whose answer may never come."""
    async with made.public() as client:
        with contextlib.suppress(httpx.TransportError):
            await client.request(method, "/hub/api/users/alice/server")


@pytest.mark.timeout(300)
async def test_a_start_and_a_stop_survive_a_kill_of_the_hub_at_every_step() -> None:
    async with installation() as made:
        await made.start_hub(failpoint=SPAWN_POINTS[0])
        await made.make_user()
        await _ask(made, "POST")
        for point, following in zip(SPAWN_POINTS, (*SPAWN_POINTS[1:], ""), strict=True):
            assert await made.ended() == -signal.SIGKILL, point
            await made.start_hub(failpoint=following)
        await made.wait_for_state("ready")
        assert "/user/alice/" in made.proxy.routes

        await made.stop_hub(signal.SIGKILL)
        await made.start_hub(failpoint=STOP_POINTS[0])
        await _ask(made, "DELETE")
        for point, following in zip(STOP_POINTS, (*STOP_POINTS[1:], ""), strict=True):
            assert await made.ended() == -signal.SIGKILL, point
            await made.start_hub(failpoint=following)
        await made.wait_for_state("stopped")
        assert "/user/alice/" not in made.proxy.routes
        assert list(made.agent.launches.values()) == [1]


async def test_a_ready_server_is_left_alone_by_a_restart_and_streams_do_not_hold_it_up() -> None:
    async with installation() as made:
        await made.start_hub()
        await made.make_user()
        await _ask(made, "POST")
        await made.wait_for_state("ready")
        tables = made.proxy.tables
        await made.stop_hub(signal.SIGKILL)
        await made.start_hub()
        assert (await made.server())["ready"] is True
        assert made.proxy.tables == tables
        assert made.agent.stops == []

        await _ask(made, "DELETE")
        await made.wait_for_state("stopped")
        made.agent.instant = False
        request = asyncio.timeout(60)
        async with request, made.public() as client:
            starting = client.build_request("POST", "/hub/api/users/alice/server")
            async with asyncio.TaskGroup() as group:
                group.create_task(client.send(starting))
                await made.wait_for_state("starting")
                progress = "/hub/api/users/alice/server/progress"
                async with client.stream("GET", progress) as stream:
                    lines = stream.aiter_lines()
                    await anext(lines)
                    assert await made.stop_hub() == 0
                    async for _ in lines:
                        pass

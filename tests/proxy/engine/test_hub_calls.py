"""Calls to a hub that does not answer."""

import asyncio

import httpx
import pytest
from proxy.wire import eventually

from carrel_proxy.access import hub as calls
from carrel_proxy.access.hub import MOST_AT_ONCE, Hub
from carrel_proxy.errors import HubAwayError
from carrel_shared.tasks import TaskOwner

SERVER = "0123456789ab"


async def test_nobody_waits_behind_others_for_a_hub_that_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Anybody can have it asked about made-up tokens."""
    asked = 0

    async def hangs(_request: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        return await asyncio.Future[httpx.Response]()

    http = httpx.AsyncClient(transport=httpx.MockTransport(hangs), base_url="http://hub.internal")
    hub = Hub("unix:/nowhere", "k" * 40, "edge", client=http)
    tasks = TaskOwner()
    waiting = [
        tasks.start(hub.verdict(f"{number:064}", SERVER), name="call")
        for number in range(MOST_AT_ONCE)
    ]
    await eventually(lambda: asked == MOST_AT_ONCE)
    monkeypatch.setattr(calls, "SLOT_SECONDS", 0.01)
    with pytest.raises(HubAwayError, match="too many calls"):
        await hub.verdict("a" * 64, SERVER)
    with pytest.raises(HubAwayError, match="too many calls"):
        await hub.check_reachable()
    waiting[0].cancel()
    monkeypatch.undo()
    tasks.start(hub.verdict("b" * 64, SERVER), name="call")
    await eventually(lambda: asked == MOST_AT_ONCE + 1)
    await tasks.close()
    await hub.close()


async def test_nobody_without_a_name_is_let_in() -> None:
    def answers(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content='{"known": true, "allow": true}')

    http = httpx.AsyncClient(transport=httpx.MockTransport(answers), base_url="http://hub.internal")
    hub = Hub("unix:/nowhere", "k" * 40, "edge", client=http)
    with pytest.raises(HubAwayError, match="does not say who"):
        await hub.verdict("a" * 64, SERVER)
    await hub.close()

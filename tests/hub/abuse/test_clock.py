"""The hub's clock was ahead, and somebody sets it right while much waits for a time."""

import asyncio
import contextlib
from datetime import timedelta

import pytest
from hub.web.site import open_site
from hub.world import World

from carrel_hub.context import Watch
from carrel_hub.db.models import LoginAttempt
from carrel_hub.due import LONGEST, is_due
from carrel_hub.spawns.reconciler import SCAN_SECONDS
from carrel_shared.clock import ManualClock

_DAY = 86400


def test_what_was_put_off_by_a_clock_that_was_ahead_is_due() -> None:
    now = ManualClock().now()
    assert is_due(None, now)
    assert is_due(now, now)
    assert not is_due(now + timedelta(seconds=1), now)
    assert not is_due(now + LONGEST, now)
    assert is_due(now + timedelta(days=1), now)


async def test_a_start_that_waits_for_its_next_try_goes_on(world: World) -> None:
    await world.report()
    world.agent.switch.down = True
    row = await world.drive(await world.start())
    assert row.state == "queued"
    assert row.next_attempt_at is not None
    world.clock.set_back(_DAY)
    world.agent.switch.down = False
    assert (await world.settle(row)).state == "ready"


async def test_the_rows_are_looked_at_no_later_than_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    async def wait(watch: Watch, seconds: float) -> None:
        waits.append(seconds)
        world.clock.set_back(_DAY)
        world.clock.advance(SCAN_SECONDS)
        if len(waits) == 3:
            raise asyncio.CancelledError

    monkeypatch.setattr(Watch, "wait", wait)
    with contextlib.suppress(asyncio.CancelledError):
        await world.reconciler.run()
    assert waits == [SCAN_SECONDS] * 3


async def test_nobody_is_kept_out_by_attempts_of_the_future() -> None:
    async with open_site(auth={"max_failures": 2}) as site:
        site.pam.passwords["alice"] = "right"
        browser = site.browser()
        page = await browser.get("/hub/login")
        for _ in range(3):
            reply = await browser.press(page, "sign-in", username="alice", password="wrong")
        assert reply.status_code == 429
        site.clock.set_back(_DAY)
        reply = await browser.press(page, "sign-in", username="alice", password="right")
        assert reply.status_code == 302
        assert await site.all(LoginAttempt) == []

"""What never answers keeps nothing else from being done."""

import asyncio
import os
import threading
from collections.abc import Iterator

import pytest

from carrel_agent.supervise import evidence, patience, starting
from carrel_agent.supervise.launching import LaunchError
from carrel_agent.supervise.patience import within


@pytest.fixture
def hanging() -> Iterator[threading.Event]:
    """Let what was asked answer at the end."""
    event = threading.Event()
    yield event
    event.set()


async def test_homes_that_hang_leave_the_journals_threads_alone(
    monkeypatch: pytest.MonkeyPatch, hanging: threading.Event
) -> None:
    def hang(_path: object) -> os.stat_result:
        hanging.wait()
        raise FileNotFoundError

    monkeypatch.setattr(os, "stat", hang)
    monkeypatch.setattr(os, "statvfs", hang)
    monkeypatch.setattr(starting, "HOME_SECONDS", 0.05)
    monkeypatch.setattr(evidence, "DISK_SECONDS", 0.05)
    homes = [f"/lost/{number}" for number in range(40)]
    told = await asyncio.gather(
        *(starting.require_home(home) for home in homes), return_exceptions=True
    )
    assert all(isinstance(one, LaunchError) for one in told)
    assert set(await asyncio.gather(*map(evidence.state_of_disk, homes))) == {"does not answer"}
    async with asyncio.timeout(60):
        assert await asyncio.to_thread(lambda: 1) == 1


async def test_what_is_asked_again_is_asked_once(hanging: threading.Event) -> None:
    asked = []

    def ask() -> int:
        asked.append(1)
        hanging.wait()
        return 7

    for _ in range(3):
        with pytest.raises(TimeoutError):
            await within(0.01, "the same", ask)

    async def let_it() -> None:
        hanging.set()

    assert (await asyncio.gather(within(60, "the same", ask), let_it()))[0] == 7
    assert asked == [1]


async def test_while_too_many_are_without_an_answer_others_wait(
    monkeypatch: pytest.MonkeyPatch, hanging: threading.Event
) -> None:
    monkeypatch.setattr(patience, "MOST_AT_ONCE", 1)
    with pytest.raises(TimeoutError):
        await within(0.01, "first", hanging.wait)
    with pytest.raises(TimeoutError):
        await within(0.05, "second", lambda: 2)
    hanging.set()
    assert await asyncio.gather(*(within(60, n, lambda: 3) for n in range(20))) == [3] * 20


async def test_an_error_is_an_answer() -> None:
    def fail() -> None:
        raise KeyError("nobody")

    for _ in range(2):
        with pytest.raises(KeyError):
            await within(60, "error", fail)

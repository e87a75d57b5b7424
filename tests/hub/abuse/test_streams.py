"""Streams: as many as one may have, until they are left, and no longer than one may read them."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from hub.users.conftest import NewPerson
from hub.world import World
from sqlmodel import delete

from carrel_hub.app import create_public_app
from carrel_hub.db.models import Token
from carrel_hub.spawns.agents import AgentClients
from carrel_hub.users import streams
from carrel_hub.users.streams import MOST_LOGS


class SilentLog:
    """A server that prints nothing, and who follows it."""

    def __init__(self) -> None:
        self.open = 0
        self.changed = asyncio.Event()

    async def follow(self, *_: Any, **__: Any) -> AsyncGenerator[bytes, None]:
        self._count(1)
        try:
            yield b""
            await asyncio.Event().wait()
        finally:
            self._count(-1)

    def _count(self, more: int) -> None:
        self.open += more
        self.changed.set()

    async def wait_for(self, count: int) -> None:
        while self.open != count:
            self.changed.clear()
            await self.changed.wait()


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> SilentLog:
    made = SilentLog()
    monkeypatch.setattr(AgentClients, "follow_log", lambda _, *args, **more: made.follow())
    return made


class Reader:
    """One request, as the server that carries it sees it."""

    def __init__(self, live: World, authorization: str, what: str = "log") -> None:
        self.left = asyncio.Event()
        self.status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        path = f"/hub/api/users/bob/server/{what}"
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "method": "GET",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"follow=1",
            "headers": [(b"host", b"hub.test"), (b"authorization", authorization.encode())],
            "client": ("127.0.0.1", 1),
            "scheme": "http",
        }
        app = create_public_app(live.hub)
        self.task: asyncio.Task[Any] = live.hub.tasks.start(
            app(scope, self._receive, self._send),  # type: ignore[arg-type]
            name="reader",
        )

    async def _receive(self) -> dict[str, Any]:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status.set_result(message["status"])

    async def leave(self) -> None:
        self.left.set()
        await self.task


async def test_who_leaves_a_log_that_says_nothing_leaves_nothing_behind(
    live: World, new_person: NewPerson, silent: SilentLog
) -> None:
    bob = await new_person("bob")
    await bob.post("/users/bob/server")
    reader = Reader(live, bob.headers["Authorization"])
    assert await reader.status == 200
    await reader.leave()
    await silent.wait_for(0)


async def test_so_many_logs_may_be_followed_at_once(
    live: World, new_person: NewPerson, silent: SilentLog
) -> None:
    bob, ada = await new_person("bob"), await new_person("ada", admin=True)
    await bob.post("/users/bob/server")
    readers = [Reader(live, bob.headers["Authorization"]) for _ in range(MOST_LOGS)]
    assert {await one.status for one in readers} == {200}
    late = await bob.get("/users/bob/server/log?follow=1")
    assert late.status_code == 429
    await silent.wait_for(MOST_LOGS)
    other = Reader(live, ada.headers["Authorization"])
    assert await other.status == 200
    await readers.pop().leave()
    again = Reader(live, bob.headers["Authorization"])
    assert await again.status == 200
    for one in (*readers, other, again):
        await one.leave()
    await silent.wait_for(0)


async def test_a_log_is_followed_no_longer_than_one_may(
    live: World,
    new_person: NewPerson,
    silent: SilentLog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "LOOK_SECONDS", 0.01)
    bob = await new_person("bob")
    await bob.post("/users/bob/server")
    reader = Reader(live, bob.headers["Authorization"])
    assert await reader.status == 200
    async with live.hub.database.write() as session:
        await session.exec(delete(Token))
    await reader.task
    await silent.wait_for(0)


async def test_the_progress_of_a_start_is_told_no_longer_than_one_may(
    live: World, new_person: NewPerson, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "LOOK_SECONDS", 0.01)
    live.agent.instant = False
    object.__setattr__(
        live.hub, "settings", live.hub.settings.model_copy(update={"slow_spawn_seconds": 0})
    )
    bob = await new_person("bob")
    assert (await bob.post("/users/bob/server")).status_code == 202
    reader = Reader(live, bob.headers["Authorization"], "progress")
    assert await reader.status == 200
    async with live.hub.database.write() as session:
        await session.exec(delete(Token))
    await reader.task

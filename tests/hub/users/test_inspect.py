"""Limits, use and output of running servers over the REST API."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from hub.fakes import FakeAgent
from hub.users.conftest import NewPerson
from hub.world import World, open_world
from pydantic import ValidationError
from sqlmodel import select

from carrel_hub.db.models import Event, Server
from carrel_hub.spawns.limits import LimitSettings
from carrel_hub.spawns.profiles import ProfileSettings
from carrel_hub.spawns.reconciler import Reconciler
from carrel_shared.clock import SystemClock
from carrel_shared.wire.limits import LimitEvent

LIMITS = {"memory": "2G", "cpu": 1.5, "processes": 200}


@pytest.fixture
async def live() -> AsyncIterator[World]:
    """A hub that works by itself, whose servers have limits."""
    changes: dict[str, Any] = {"profiles": {"default": {"limits": LIMITS}}}
    async with open_world(
        clock=SystemClock(), agent=FakeAgent(), slow_spawn_seconds=60, **changes
    ) as world:
        await world.report()
        world.hub.tasks.start(Reconciler(world.hub).run(), name="reconciler")
        world.hub.tasks.start(world.pusher.run(), name="push")
        yield world


async def test_a_profiles_limits_reach_the_agent_and_the_server(
    new_person: NewPerson, live: World
) -> None:
    bob = await new_person("bob")
    assert (await bob.post("/users/bob/server")).status_code == 201
    [spec] = live.agent.specs
    assert (spec.limits.memory_bytes, spec.limits.cpu_cores) == (2 << 30, 1.5)
    assert spec.limits.processes == 200
    assert spec.environment["MEM_LIMIT"] == str(2 << 30)
    assert spec.environment["CPU_LIMIT"] == "1.5"


async def test_only_administrators_change_limits_and_the_history_has_it(
    new_person: NewPerson, live: World
) -> None:
    bob, root = await new_person("bob"), await new_person("root", admin=True)
    assert (await bob.get("/users/bob/server/usage")).status_code == 404
    await bob.post("/users/bob/server")
    assert (await bob.put("/users/bob/server/limits", json={"memory": "9G"})).status_code == 403
    reply = await root.put("/users/bob/server/limits", json={"memory": "4G", "cpu": 2})
    assert reply.status_code == 200
    assert live.agent.limits.memory_bytes == 4 << 30
    seen = (await bob.get("/users/bob/server/usage")).json()
    assert (seen["memory"], seen["processes"]) == (100, 3)
    assert seen["limits"]["memory"] == 4 << 30
    async with live.hub.database.read() as session:
        kind = "server.limits_changed"
        [event] = (await session.exec(select(Event).where(Event.kind == kind))).all()
    assert (event.actor, event.data["memory"]) == ("user:root", 4 << 30)

    wrong = await root.put("/users/bob/server/limits", json={"memory": "much"})
    assert wrong.status_code == 400
    assert "write 512M or 1.5G" in wrong.json()["message"]
    live.agent.refusal = (409, "limit_below_use", "memory: 3 GiB are in use")
    refused = await root.put("/users/bob/server/limits", json={"memory": "1G"})
    assert refused.status_code == 400
    assert "3 GiB are in use" in refused.json()["message"]


async def test_output_is_for_owner_and_administrators(new_person: NewPerson, live: World) -> None:
    bob, root = await new_person("bob"), await new_person("root", admin=True)
    await bob.post("/users/bob/server")
    for person in (bob, root):
        assert (await person.get("/users/bob/server/log?lines=2")).json() == {
            "lines": ["two", "three"]
        }
        followed = await person.get("/users/bob/server/log?follow=1")
        assert followed.text == "one\ntwo\nthree\n"
        assert followed.headers["content-type"] == "text/plain; charset=utf-8"
    eve = await new_person("eve")
    reader = await new_person("reader", scopes=["read:servers"])
    for other in (eve, reader, await new_person(None)):
        assert (await other.get("/users/bob/server/log")).status_code in (403, 404)
    live.agent.switch.down = True
    assert (await bob.get("/users/bob/server/log?follow=1")).status_code == 503


async def test_a_failure_is_explained_over_the_api(new_person: NewPerson, live: World) -> None:
    bob = await new_person("bob")
    await bob.post("/users/bob/server")
    assert (await bob.get("/users/bob/server/failure")).status_code == 404
    [server_id] = live.agent.servers
    live.agent.end(server_id, cause="exited", code=1, summary="Your disk quota is used up.")
    await live.report()
    told = (await bob.get("/users/bob/server/failure")).json()
    assert (told["cause"], told["code"]) == ("exited", 1)
    assert told["summary"] == "Your disk quota is used up."
    assert told["log_tail"] == ["last words"]
    assert (await bob.get("/users/bob/server/log")).json() == {"lines": ["last words"]}
    reader = await new_person("reader", scopes=["read:servers"])
    assert (await reader.get("/users/bob/server/failure")).status_code in (403, 404)


async def test_a_limit_that_was_met_is_told_once_each_time(
    new_person: NewPerson, live: World
) -> None:
    bob = await new_person("bob")
    await bob.post("/users/bob/server")
    [server_id] = live.agent.servers

    async def meet(count: int) -> None:
        event = LimitEvent(kind="memory", count=count, limit=2 << 30, at=SystemClock().now())
        known = live.agent.servers[server_id]
        live.agent.servers[server_id] = known.model_copy(update={"limit_events": [event]})
        await live.report()
        await live.report()

    await meet(1)
    await meet(3)
    async with live.hub.database.read() as session:
        kind = "server.limit_met"
        events = (await session.exec(select(Event).where(Event.kind == kind))).all()
        row = await session.get(Server, server_id)
    assert [e.data["count"] for e in events] == [1, 3]
    assert events[0].message == (
        "It reached its memory limit of 2.0 GiB once: a process of it was ended each time."
    )
    assert row is not None
    assert row.progress_message == events[1].message


@pytest.mark.parametrize(
    ("given", "size"),
    [("512M", 512 << 20), ("1.5G", 3 << 29), ("2 GiB", 2 << 30), ("1048576", 1 << 20)],
)
def test_sizes_have_units(given: str, size: int) -> None:
    assert LimitSettings.model_validate({"memory": given}).memory == size


def test_what_is_no_size_is_refused() -> None:
    for wrong in ("", "G", "-1G", "1X", "0"):
        with pytest.raises(ValidationError):
            ProfileSettings.model_validate({"limits": {"memory": wrong}})

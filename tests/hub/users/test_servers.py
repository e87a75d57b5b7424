"""Servers by name over the REST API: made, started, renamed, removed."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from hub.fakes import FakeAgent
from hub.users.conftest import NewPerson
from hub.world import World, open_world
from sqlmodel import select

from carrel_hub.db.models import Token
from carrel_hub.spawns.reconciler import Reconciler
from carrel_hub.spawns.service import request_start
from carrel_hub.users.accounts import get_or_create_user
from carrel_shared.clock import SystemClock
from carrel_shared.wire.servers import ServerState


@pytest.fixture
async def live() -> AsyncIterator[World]:
    """A hub with named servers that works by itself."""
    changes: dict[str, Any] = {
        "allow_named_servers": True,
        "named_server_limit": 2,
        "slow_spawn_seconds": 60,
        "slow_stop_seconds": 60,
        "api_url": "http://127.0.0.1:8000/hub/api",
        "profiles": {
            "lab": {"command": ["/opt/lab"], "environment": {"KIND": "lab"}, "csrf": "app"},
            "stock": {"command": ["/opt/stock", "--x"], "contract": "jupyterhub"},
        },
    }
    async with open_world(clock=SystemClock(), agent=FakeAgent(), **changes) as world:
        await world.report()
        world.hub.tasks.start(Reconciler(world.hub).run(), name="reconciler")
        world.hub.tasks.start(world.pusher.run(), name="push")
        yield world


async def test_a_named_server_is_started_shown_stopped_and_removed(
    new_person: NewPerson, live: World
) -> None:
    bob = await new_person("bob")
    assert (await bob.post("/users/bob/servers/lab")).status_code == 201
    servers = (await bob.get("/users/bob")).json()["servers"]
    assert list(servers) == ["lab"]
    lab = servers["lab"]
    assert (lab["name"], lab["full_name"], lab["url"]) == ("lab", "bob/lab", "/user/bob/lab/")
    assert lab["display_name"] == "lab"
    assert lab["progress_url"] == "/hub/api/users/bob/servers/lab/progress"
    assert "/user/bob/lab/" in live.proxy.routes
    assert (await bob.delete("/users/bob/servers/lab")).status_code == 204
    assert (await bob.get("/users/bob")).json()["servers"] == {}
    stopped = (await bob.get("/users/bob?include_stopped_servers=1")).json()["servers"]
    assert stopped["lab"]["stopped"]
    removal = await bob.request("DELETE", "/users/bob/servers/lab", json={"remove": True})
    assert removal.status_code == 204
    assert (await bob.get("/users/bob/servers/lab")).status_code == 404
    assert (await bob.delete("/users/bob/servers/lab")).status_code == 404


async def test_removing_what_runs_stops_it_first(new_person: NewPerson, live: World) -> None:
    bob = await new_person("bob")
    live.agent.stop_at_once = False
    await bob.post("/users/bob/servers/lab")
    path = "/users/bob/servers/lab"
    live.change_settings(slow_stop_seconds=0.05)
    assert (await bob.request("DELETE", path, json={"remove": True})).status_code == 202
    assert (await bob.get(path)).json()["pending"] == "stop"
    [server_id] = live.agent.servers
    live.agent.end(server_id, cause="stopped", code=0)
    await live.report()
    assert (await bob.get(path)).status_code == 404
    assert (await live.report()).forget == [server_id]


async def test_a_record_is_made_without_starting_it(new_person: NewPerson) -> None:
    bob, alice = await new_person("bob"), await new_person("alice")
    body = {"display_name": "My Lab", "user_options": {"profile": "lab"}}
    made = await bob.put("/users/bob/servers/lab", json=body)
    assert made.status_code == 201
    assert (made.json()["display_name"], made.json()["ready"]) == ("My Lab", False)
    assert made.json()["user_options"] == {"profile": "lab"}
    nameless = await bob.put("/users/bob/servers/plain", json={"display_name": ""})
    assert nameless.json()["display_name"] == "plain"
    moved = await bob.patch("/users/bob/servers/plain", json={"name": "plainer"})
    assert moved.json()["display_name"] == "plainer", "what nobody chose goes with the name"
    assert (await bob.put("/users/bob/servers/lab")).status_code == 409
    assert (await bob.put("/users/bob/server")).status_code == 409
    assert (await alice.put("/users/bob/servers/other")).status_code == 404
    assert (await alice.patch("/users/bob/servers/lab", json={"name": "x"})).status_code == 404


@pytest.mark.parametrize(
    "name", ["Lab", "1lab", "la--b", "lab-", "-lab", "l" * 31, "la_b", "lab%20x", "ünï", "."]
)
async def test_no_server_gets_a_name_that_is_none(new_person: NewPerson, name: str) -> None:
    bob = await new_person("bob")
    for method in ("POST", "PUT"):
        reply = await bob.request(method, f"/users/bob/servers/{name}")
        assert reply.status_code in (400, 404), "httpx resolves dots before they are sent"
    assert {*(await bob.get("/users/bob?include_stopped_servers=1")).json()["servers"]} == {""}


async def test_there_are_as_many_as_may_be(new_person: NewPerson) -> None:
    bob = await new_person("bob")
    await bob.post("/users/bob/server")
    for name in ("a", "b"):
        assert (await bob.put(f"/users/bob/servers/{name}")).status_code == 201
    reply = await bob.post("/users/bob/servers/c")
    assert reply.status_code == 400
    assert "as many as may be" in reply.json()["message"]
    assert (await bob.post("/users/bob/servers/a")).status_code == 201, "those there are count not"


async def test_a_rename_moves_what_is_kept_and_no_browsers_access(
    new_person: NewPerson, live: World
) -> None:
    bob = await new_person("bob")
    await bob.post("/users/bob/servers/old", json={"user_options": {"n": 1}})
    running = await bob.patch("/users/bob/servers/old", json={"name": "new"})
    assert running.status_code == 400
    await bob.delete("/users/bob/servers/old")
    await bob.put("/users/bob/servers/taken")
    taken = await bob.patch("/users/bob/servers/old", json={"name": "taken"})
    assert taken.status_code == 409
    wrong: list[Any] = [
        {},
        [],
        {"what": 1},
        {"name": "A B"},
        {"user_options": None},
        {"display_name": 1},
    ]
    for body in wrong:
        assert (await bob.patch("/users/bob/servers/old", json=body)).status_code == 400
    renamed = await bob.patch("/users/bob/servers/old", json={"name": "new", "display_name": "N"})
    assert renamed.status_code == 200
    assert (renamed.json()["name"], renamed.json()["display_name"]) == ("new", "N")
    assert renamed.json()["user_options"] == {"n": 1}
    assert (await bob.get("/users/bob/servers/old")).status_code == 404
    await live.push()
    [server_id] = live.agent.servers
    assert [r.server_id for r in live.proxy.revoked] == [server_id]


async def test_the_default_server_moves_and_leaves_its_place(new_person: NewPerson) -> None:
    bob = await new_person("bob")
    await bob.post("/users/bob/server", json={"user_options": {"n": 1}})
    await bob.delete("/users/bob/server")
    assert (await bob.patch("/users/bob/server", json={"name": "kept"})).status_code == 200
    assert (await bob.get("/users/bob/servers/kept")).json()["user_options"] == {"n": 1}
    fresh = (await bob.get("/users/bob/server")).json()
    assert (fresh["stopped"], fresh["user_options"]) == (True, {})


async def test_options_choose_the_profile(new_person: NewPerson, live: World) -> None:
    bob = await new_person("bob")
    await bob.post("/users/bob/servers/a", json={"user_options": {"profile": "lab"}})
    refused = await bob.post("/users/bob/servers/b", json={"user_options": {"profile": "no such"}})
    assert refused.status_code == 400
    assert "choose one of default, lab, stock" in refused.json()["message"]
    assert (await bob.post("/users/bob/servers/b", json={"n": 1})).status_code == 201
    lab, plain = live.agent.specs
    assert (lab.command, lab.runner, lab.listen) == (["/opt/lab"], None, "socket")
    assert lab.environment["KIND"] == "lab"
    assert (plain.command, plain.listen) == (None, "socket")
    assert "JUPYTERHUB_API_TOKEN" not in lab.environment | plain.environment
    guards = [live.proxy.routes[f"/user/bob/{name}/"].access for name in "ab"]
    assert [one.csrf for one in guards if one is not None] == ["app", "origin"]


async def test_a_server_made_for_jupyterhub_gets_its_variables_and_a_token_of_its_own(
    new_person: NewPerson, live: World
) -> None:
    bob, server = await new_person("bob"), await new_person(None)
    await bob.post("/users/bob/servers/s", json={"user_options": {"profile": "stock"}})
    [spec] = live.agent.specs
    env = spec.environment
    assert (spec.command, spec.listen) == (["/opt/stock", "--x"], "port")
    assert env["JUPYTERHUB_API_URL"] == "http://127.0.0.1:8000/hub/api"
    assert env["JUPYTERHUB_ACTIVITY_URL"] == env["JUPYTERHUB_API_URL"] + "/users/bob/activity"
    assert env["JUPYTERHUB_OAUTH_CALLBACK_URL"] == "/user/bob/s/oauth_callback"
    assert env["JUPYTERHUB_CLIENT_ID"] == "jupyterhub-user-bob-s"
    assert "access:servers!server=bob/s" in env["JUPYTERHUB_OAUTH_ACCESS_SCOPES"]
    route = live.proxy.routes["/user/bob/s/"]
    assert (route.access, route.stock_client_id) == (None, "jupyterhub-user-bob-s")

    server.headers["Authorization"] = f"token {env['JUPYTERHUB_API_TOKEN']}"
    me = (await server.get("/user")).json()
    assert me["name"] == "bob"
    assert "users:activity!user=bob" in me["scopes"]
    assert "access:servers!server=bob/s" in me["scopes"]
    assert (await server.post("/users/bob/tokens")).status_code == 403
    assert (await server.get("/users/bob/tokens")).status_code == 403
    [listed] = [
        token
        for token in (await bob.get("/users/bob/tokens")).json()["api_tokens"]
        if token["note"] == "Server at /user/bob/s/"
    ]
    assert listed["oauth_client"] == "JupyterHub"

    await bob.delete("/users/bob/servers/s")
    assert (await server.get("/user")).status_code == 403
    async with live.hub.database.read() as session:
        notes = (await session.exec(select(Token.note))).all()
    assert not [note for note in notes if note.startswith("Server at")]


async def test_a_server_that_died_unnoticed_is_started_anew(
    new_person: NewPerson, live: World
) -> None:
    bob = await new_person("bob")
    await bob.post("/users/bob/server")
    [server_id] = live.agent.servers
    live.agent.end(server_id, cause="exited", code=3)
    assert (await bob.post("/users/bob/server")).status_code == 201
    assert live.agent.servers[server_id].generation == 2
    again = await bob.post("/users/bob/server")
    assert (again.status_code, "already running" in again.json()["message"]) == (400, True)


async def test_more_servers_than_may_run_are_429(new_person: NewPerson, live: World) -> None:
    live.change_settings(active_server_limit=1)
    bob, alice = await new_person("bob"), await new_person("alice")
    assert (await bob.post("/users/bob/server")).status_code == 201
    refused = await alice.post("/users/alice/server")
    assert refused.status_code == 429
    assert "retry-after" not in refused.headers


async def test_somebody_without_an_account_runs_where_one_account_is_shared(
    new_person: NewPerson, live: World
) -> None:
    guest = await new_person("guest", account=None)
    assert (await guest.post("/users/guest/server")).status_code == 400
    live.agent.accounts = "shared-insecure"
    await live.report()
    assert (await guest.post("/users/guest/server")).status_code == 201
    assert live.agent.specs[-1].account == ""
    assert live.agent.servers[live.agent.specs[-1].server_id].state == ServerState.READY


async def test_a_start_waits_for_a_host_that_was_never_heard() -> None:
    """Right after an installation nobody knows yet whose servers its host runs."""
    async with open_world(agent=FakeAgent(accounts="shared-insecure")) as world:
        async with world.hub.database.write() as session:
            guest = await get_or_create_user(session, "guest", at=world.clock.now())
            row = await request_start(session, world.hub, guest, actor="user:guest")
        waiting = await world.drive(row)
        assert "has not reported yet" in waiting.progress_message
        await world.report()
        world.clock.advance(5)
        assert (await world.settle(row)).state == "ready"

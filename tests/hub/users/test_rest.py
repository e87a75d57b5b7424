"""The REST API as JupyterHub's clients read it."""

import asyncio
import json
from typing import Any

import pytest
from hub.users.conftest import NewPerson
from hub.world import World

from carrel_hub.context import Hub
from carrel_hub.db.models import Server
from carrel_hub.users import progress
from carrel_shared.wire.servers import ServerState


async def test_the_root_names_the_version_to_everybody(new_person: NewPerson) -> None:
    client = await new_person(None)
    for path in ("", "/"):
        reply = await client.get(path)
        assert reply.status_code == 200
        assert reply.json() == {"version": "6.1.1"}
        assert reply.headers["access-control-allow-origin"] == "*"
        assert reply.headers["x-jupyterhub-version"] == "6.1.1"
        assert reply.headers["x-carrel-version"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("POST", "/nothing", 404),
        ("PUT", "/user", 405),
        ("HEAD", "/user", 405),
        ("OPTIONS", "/user", 200),
        ("OPTIONS", "/nothing", 200),
        ("HEAD", "/health", 200),
        ("GET", "/health", 200),
        ("GET", "/users//server", 404),
    ],
)
async def test_methods_and_unknown_paths(
    new_person: NewPerson, method: str, path: str, status: int
) -> None:
    reply = await (await new_person(None)).request(method, path)
    assert reply.status_code == status
    assert reply.headers["x-jupyterhub-version"] == "6.1.1"
    if status >= 400 and method != "HEAD":
        assert reply.headers["content-type"] == "application/json"
        assert reply.json() == {"status": status, "message": None}


async def test_whoami_without_a_good_token_is_403_never_401(new_person: NewPerson) -> None:
    for client in (await new_person(None), await new_person("alice", expired=True)):
        reply = await client.get("/user")
        assert reply.status_code == 403
        assert reply.json() == {"status": 403, "message": "Missing or invalid credentials."}


async def test_whoami_has_identity_scopes_and_token(new_person: NewPerson) -> None:
    model = (await (await new_person("alice")).get("/user")).json()
    assert (model["kind"], model["name"], model["admin"]) == ("user", "alice", False)
    assert model["token_id"].startswith("a")
    assert model["session_id"] is None
    assert "access:servers!user=alice" in model["scopes"]
    assert model["scopes"] == sorted(model["scopes"])
    assert (model["server"], model["pending"], model["servers"]) == (None, None, {})
    assert model["created"].endswith("Z")


async def test_a_narrow_token_still_learns_who_it_is_and_nothing_more(
    new_person: NewPerson,
) -> None:
    client = await new_person("alice", scopes=["access:servers!server=alice/"])
    model = (await client.get("/user")).json()
    assert model["name"] == "alice"
    assert "servers" not in model
    assert "created" not in model
    assert model["scopes"] == [
        "access:servers!server=alice/",
        "read:users:groups!user=alice",
        "read:users:name!user=alice",
    ]
    assert set((await client.get("/users/alice")).json()) == {
        "kind", "name", "admin", "user_info", "groups"
    }  # fmt: skip
    assert (await client.post("/users/alice/server")).status_code == 403


async def test_others_and_the_nonexistent_look_alike_but_not_to_an_admin(
    new_person: NewPerson,
) -> None:
    alice, admin = await new_person("alice"), await new_person("root-of-all", admin=True)
    await new_person("bob")
    replies = [await alice.get("/users/bob"), await alice.get("/users/nobody")]
    assert [reply.status_code for reply in replies] == [404, 404]
    assert replies[0].json() == replies[1].json()
    assert (await admin.get("/users/bob")).json()["name"] == "bob"
    assert (await admin.get("/users/nobody")).json() == {"status": 404, "message": None}
    for method in ("POST", "DELETE"):
        assert (await alice.request(method, "/users/bob/server")).status_code == 404


async def test_a_start_that_is_quick_is_201_and_empty_text(
    live: World, new_person: NewPerson
) -> None:
    client = await new_person("alice")
    reply = await client.post("/users/alice/server")
    assert (reply.status_code, reply.content) == (201, b"")
    assert reply.headers["content-type"].startswith("text/plain")
    model = (await client.get("/users/alice")).json()
    assert model["server"] == "/user/alice/"
    server = model["servers"][""]
    assert (server["ready"], server["stopped"], server["pending"]) == (True, False, None)
    assert server["full_name"] == "alice/"
    assert server["url"] == "/user/alice/"
    assert server["progress_url"] == "/hub/api/users/alice/server/progress"
    assert server["started"].endswith("Z")
    assert "state" not in server
    assert "/user/alice/" in live.proxy.routes

    again = await client.post("/users/alice/server")
    assert again.status_code == 400
    assert "already running" in again.json()["message"]


async def test_a_slow_start_is_202_and_a_second_one_joins_it(
    live: World, new_person: NewPerson
) -> None:
    live.agent.instant = False
    live.change_settings(slow_spawn_seconds=0)
    client = await new_person("alice")
    replies = [await client.post("/users/alice/server") for _ in range(2)]
    assert [reply.status_code for reply in replies] == [202, 202]
    model = (await client.get("/users/alice")).json()
    assert (model["pending"], model["server"]) == ("spawn", None)
    assert model["servers"][""]["pending"] == "spawn"
    assert len(live.agent.specs) <= 1


async def test_a_start_that_fails_within_the_wait_is_500_with_the_cause(
    live: World, new_person: NewPerson
) -> None:
    live.agent.refusal = (400, "account_unknown", "this host has no account 'alice'")
    reply = await (await new_person("alice")).post("/users/alice/server")
    assert reply.status_code == 500
    assert "this host has no account 'alice'" in reply.json()["message"]


async def test_somebody_without_an_account_is_told_so(new_person: NewPerson) -> None:
    client = await new_person("admin", admin=True, account=None)
    reply = await client.post("/users/admin/server")
    assert reply.status_code == 400
    assert "has no unix account" in reply.json()["message"]


async def test_a_stop_is_204_and_so_is_a_stop_of_nothing(
    live: World, new_person: NewPerson
) -> None:
    client = await new_person("alice")
    assert (await client.delete("/users/alice/server")).status_code == 204
    await client.post("/users/alice/server")
    reply = await client.delete("/users/alice/server")
    assert (reply.status_code, reply.content) == (204, b"")
    async with asyncio.timeout(60):
        while "/user/alice/" in live.proxy.routes:  # noqa: ASYNC110 - a fake tells nobody
            await asyncio.sleep(0.01)
    assert (await client.get("/users/alice")).json()["servers"] == {}
    with_stopped = await client.get("/users/alice?include_stopped_servers")
    assert with_stopped.json()["servers"][""]["stopped"] is True
    assert (await client.delete("/users/alice/servers/")).status_code == 204


async def test_a_slow_stop_is_202(live: World, new_person: NewPerson) -> None:
    client = await new_person("alice")
    await client.post("/users/alice/server")
    live.agent.stop_at_once = False
    live.change_settings(slow_stop_seconds=0)
    assert (await client.delete("/users/alice/server")).status_code == 202
    assert (await client.get("/users/alice")).json()["servers"][""]["pending"] == "stop"
    assert (await client.post("/users/alice/server")).status_code == 400


@pytest.mark.parametrize(
    ("body", "status", "options"),
    [
        (b"", 201, {}),
        (b"{}", 201, {}),
        (b'{"size": "big"}', 201, {"size": "big"}),
        (b'{"user_options": {"size": "big"}}', 201, {"size": "big"}),
        (b'{"display_name": "x"}', 201, {}),
        (b'{"display_name": 1}', 400, None),
        (b'{"user_options": []}', 400, None),
        (b"[1]", 400, None),
        (b"{", 400, None),
        (b"\xff", 400, None),
    ],
)
async def test_bodies_of_a_start(
    new_person: NewPerson, body: bytes, status: int, options: dict[str, Any] | None
) -> None:
    client = await new_person("alice")
    reply = await client.post("/users/alice/server", content=body)
    assert reply.status_code == status
    if status == 400:
        assert set(reply.json()) == {"status", "message"}
    else:
        server = (await client.get("/users/alice/server")).json()
        assert server["user_options"] == options


async def test_named_servers_and_removal_are_refused_plainly(new_person: NewPerson) -> None:
    client = await new_person("alice")
    reply = await client.post("/users/alice/servers/lab")
    assert (reply.status_code, reply.json()["message"]) == (400, "Named servers are not enabled")
    assert (await client.delete("/users/alice/servers/lab")).status_code == 400
    removal = await client.request("DELETE", "/users/alice/server", json={"remove": True})
    assert removal.status_code == 400


async def test_too_many_starts_at_once_are_429_where_none_may_wait(
    live: World, new_person: NewPerson
) -> None:
    live.agent.instant = False
    live.change_settings(slow_spawn_seconds=0)
    live.change_settings(concurrent_spawn_limit=1, spawn_queue_limit=0)
    assert (await (await new_person("alice")).post("/users/alice/server")).status_code == 202
    reply = await (await new_person("bob")).post("/users/bob/server")
    assert reply.status_code == 429
    assert 30 <= int(reply.headers["retry-after"]) <= 60


async def _events(client: Any, name: str = "alice") -> list[dict[str, Any]]:
    reply = await client.get(f"/users/{name}/server/progress")
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.headers["cache-control"] == "no-cache"
    lines = [line for line in reply.text.split("\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    return [json.loads(line.removeprefix("data: ")) for line in lines]


async def test_progress_of_a_ready_server_is_one_event(new_person: NewPerson) -> None:
    client = await new_person("alice")
    await client.post("/users/alice/server")
    events = await _events(client)
    assert events == [
        {
            "progress": 100,
            "ready": True,
            "message": "Server ready at /user/alice/",
            "html_message": 'Server ready at <a href="/user/alice/">/user/alice/</a>',
            "url": "/user/alice/",
        }
    ]


async def test_progress_goes_from_requested_to_ready_in_the_agents_words(
    live: World, new_person: NewPerson
) -> None:
    live.agent.instant = False
    live.change_settings(slow_spawn_seconds=0)
    client = await new_person("alice")
    await client.post("/users/alice/server")
    row_id = ""

    async def go_on() -> None:
        nonlocal row_id
        with live.hub.wakeups.watch() as watch:
            while not live.agent.servers:
                await watch.wait(60)
            row_id = next(iter(live.agent.servers))
            live.agent.put(row_id, 1, ServerState.STARTING, progress="Loading extensions")
            await live.report()
            await watch.wait(0.05)
            live.agent.put(row_id, 1, ServerState.READY)
            await live.report()

    live.hub.tasks.start(go_on(), name="go-on")
    events = await _events(client)
    assert events[0] == {"progress": 0, "message": "Server requested"}
    assert events[-1]["ready"] is True
    steps = [event["progress"] for event in events]
    assert steps == sorted(steps)


async def test_progress_of_a_failed_start_is_one_failed_event(
    live: World, new_person: NewPerson
) -> None:
    live.agent.refusal = (400, "account_unknown", "no account <alice>")
    client = await new_person("alice")
    await client.post("/users/alice/server")
    events = await _events(client)
    assert len(events) == 1
    assert (events[0]["progress"], events[0]["failed"]) == (100, True)
    assert events[0]["message"].startswith("Spawn failed: ")


async def test_progress_of_a_stopped_server_is_404(new_person: NewPerson) -> None:
    client = await new_person("alice")
    reply = await client.get("/users/alice/server/progress")
    assert reply.status_code == 404
    assert "no server that is starting" in reply.json()["message"]


async def test_progress_of_a_cancelled_start_says_so(
    live: World, new_person: NewPerson, monkeypatch: pytest.MonkeyPatch
) -> None:
    live.agent.instant = False
    live.change_settings(slow_spawn_seconds=0)
    client = await new_person("alice")
    await client.post("/users/alice/server")
    streams, step = asyncio.Event(), progress._step

    async def seen(hub: Hub, row: Server) -> dict[str, Any]:
        streams.set()
        return await step(hub, row)

    monkeypatch.setattr(progress, "_step", seen)

    async def cancel() -> None:
        await streams.wait()
        await client.delete("/users/alice/server")

    live.hub.tasks.start(cancel(), name="cancel")
    assert (await _events(client))[-1]["message"] == "Spawn cancelled"


async def test_streams_end_when_the_hub_is_about_to(live: World, new_person: NewPerson) -> None:
    live.agent.instant = False
    live.change_settings(slow_spawn_seconds=0)
    client = await new_person("alice")
    await client.post("/users/alice/server")
    live.hub.wakeups.stop()
    assert [event["progress"] for event in await _events(client)] == [0]


async def test_a_database_that_is_away_is_503_with_retry_after(
    live: World, new_person: NewPerson, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy.exc import OperationalError

    def broken(*_args: object, **_kwargs: object) -> None:
        raise OperationalError("SELECT secret", {}, Exception("database is locked"))

    client = await new_person("alice")
    monkeypatch.setattr(live.hub.database, "write", broken)
    reply = await client.post("/users/alice/server")
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "2")
    assert "secret" not in reply.text

"""What agents, proxies and the console call: keys, names, and what they get."""

from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import httpx
import pytest
from hub.world import World

from carrel_hub.app import create_internal_app
from carrel_hub.db.models import ProxyStatus
from carrel_hub.errors import HubError
from carrel_shared.service_auth import service_headers

KEYS = {"agent": "K" * 32, "proxy": "P" * 32, "console": "c" * 32}

Call = Callable[[str], httpx.AsyncClient]


@pytest.fixture
async def caller(world: World) -> AsyncIterator[Call]:
    """Return a client of the internal API with the key of `agent`, `proxy` or `console`."""
    app = create_internal_app(world.hub)
    clients = {
        name: httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app),
            base_url="http://hub",
            headers=service_headers(key),
        )
        for name, key in KEYS.items()
    }
    yield clients.__getitem__
    for client in clients.values():
        await client.aclose()


async def test_health_needs_no_key_and_nothing_else_goes_without(world: World) -> None:
    app = create_internal_app(world.hub)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), base_url="http://hub"
    ) as nobody:
        assert (await nobody.get("/internal/v1/health")).status_code == 200
        for path in ("/internal/v1/console/servers", "/nothing", "/docs", "/openapi.json"):
            assert (await nobody.get(path)).status_code == 401


@pytest.mark.parametrize(
    ("who", "path", "body"),
    [
        ("agent", "/internal/v1/agents/other/report", None),
        ("proxy", "/internal/v1/agents/local/report", None),
        ("agent", "/internal/v1/proxies/edge/resync", {"epoch": "", "number": 0, "reason": "gap"}),
        ("proxy", "/internal/v1/proxies/other/activity", {"servers": {}}),
        ("agent", "/internal/v1/console/link", {"user": "alice"}),
        ("proxy", "/internal/v1/console/token", {"user": "alice"}),
        ("agent", "/internal/v1/console/stop-all", {"reason": "x"}),
    ],
)
async def test_nobody_calls_what_is_anothers(
    world: World, caller: Call, who: str, path: str, body: dict[str, object] | None
) -> None:
    content = body if body is not None else world.agent.report().model_dump(mode="json")
    reply = await caller(who).post(path, json=content)
    assert reply.status_code == 403
    assert reply.json()["code"] == "forbidden"


async def test_a_report_is_taken_and_answered(world: World, caller: Call) -> None:
    body = world.agent.report().model_dump(mode="json")
    reply = await caller("agent").post("/internal/v1/agents/local/report", json=body)
    assert reply.status_code == 200
    assert reply.json() == {
        "heartbeat_seconds": 10.0,
        "forget": [],
        "repeat": [],
        "trouble": "",
        "preload": [],
    }


async def test_a_body_that_cannot_be_read_names_the_place_and_not_the_value(caller: Call) -> None:
    reply = await caller("console").post(
        "/internal/v1/console/link", json={"user": "alice", "secret": "hush-hush"}
    )
    assert reply.status_code == 400
    assert "secret" in reply.json()["message"]
    assert "hush-hush" not in reply.text


async def test_the_console_makes_a_user_and_a_link(world: World, caller: Call) -> None:
    reply = await caller("console").post(
        "/internal/v1/console/link", json={"user": "Alice", "account": "alice"}
    )
    assert reply.json()["path"].startswith("/hub/sign-in/")
    user = await world.user("alice")
    assert (user.account, user.admin, user.console) == ("alice", True, True)
    other = await caller("console").post("/internal/v1/console/link", json={"user": "a/b"})
    assert other.status_code == 400


async def test_the_console_makes_a_token_for_a_user_who_exists(world: World, caller: Call) -> None:
    unknown = await caller("console").post("/internal/v1/console/token", json={"user": "alice"})
    assert unknown.status_code == 404
    await world.start("alice")
    reply = await caller("console").post("/internal/v1/console/token", json={"user": "alice"})
    assert len(reply.json()["token"]) >= 43


async def test_the_console_sees_and_stops_what_runs(world: World, caller: Call) -> None:
    row = await world.ready()
    running = (await caller("console").get("/internal/v1/console/servers")).json()["servers"]
    assert running == [{"server_id": row.id, "user": "alice", "name": "", "state": "ready"}]
    reply = await caller("console").post(
        "/internal/v1/console/stop-all", json={"reason": "Carrel was stopped"}
    )
    assert reply.status_code == 202
    await world.settle(row)
    assert (await caller("console").get("/internal/v1/console/servers")).json() == {
        "servers": [],
        "services": [],
    }
    assert world.agent.stops[0][1].reason == "Carrel was stopped"


async def test_a_proxy_that_starts_is_pushed_to_from_where_it_is(
    world: World, caller: Call
) -> None:
    await world.ready()
    world.proxy.number, world.proxy.routes = 0, {}
    body = {"epoch": world.proxy.epoch, "number": 0, "reason": "started"}
    reply = await caller("proxy").post("/internal/v1/proxies/edge/resync", json=body)
    assert reply.status_code == 202
    await world.push()
    assert list(world.proxy.routes) == ["/user/alice/"]
    body["reason"] = "gap"
    await caller("proxy").post("/internal/v1/proxies/edge/resync", json=body)
    async with world.hub.database.read() as session:
        assert (await session.get_one(ProxyStatus, "edge")).epoch == ""
    await world.push()
    assert set(world.proxy.routes) == {"/", "/user/alice/"}


async def test_activity_only_moves_forward_and_never_into_the_future(
    world: World, caller: Call
) -> None:
    row = await world.ready()
    now = world.clock.now()
    for seconds, expected in ((30, 0), (-30, 0), (3600, 0)):
        seen = (now + timedelta(seconds=seconds)).isoformat()
        body = {"servers": {row.id: seen, "ffffffffffff": seen}}
        reply = await caller("proxy").post("/internal/v1/proxies/edge/activity", json=body)
        assert reply.status_code == 204
        assert (await world.row(row)).last_activity == now + timedelta(seconds=expected)
    world.clock.advance(60)
    body = {"servers": {row.id: (now + timedelta(seconds=50)).isoformat()}}
    await caller("proxy").post("/internal/v1/proxies/edge/activity", json=body)
    assert (await world.user("alice")).last_activity == now + timedelta(seconds=50)


async def test_errors_have_a_status_a_code_and_a_message(caller: Call) -> None:
    reply = await caller("agent").get("/internal/v1/nothing")
    assert reply.status_code == 404
    assert set(reply.json()) == {"status", "code", "message"}
    assert issubclass(HubError, Exception)

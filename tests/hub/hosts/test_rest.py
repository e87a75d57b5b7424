"""`/hub/api/hosts`: what administrators see of hosts and do with them."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from hub.fakes import FakeAgent
from hub.hosts.conftest import Machine, NewMachine
from hub.world import World

from carrel_hub.app import create_public_app
from carrel_hub.auth.tokens import issue_token
from carrel_hub.db.models import HostAccount, Server
from carrel_hub.users.accounts import get_or_create_user
from carrel_shared.wire.servers import AccountFacts, ServerState


@pytest.fixture
async def admin(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async for client in client_of(world, "boss", admin=True):
        yield client


async def client_of(world: World, name: str, *, admin: bool) -> AsyncIterator[httpx.AsyncClient]:
    async with world.hub.database.write() as session:
        user = await get_or_create_user(
            session, name, at=world.clock.now(), account=name, admin=admin
        )
        secret = (await issue_token(session, world.hub, user, actor="hub")).secret
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=create_public_app(world.hub)),
        base_url="http://hub/hub/api",
        headers={"Authorization": f"token {secret}"},
    ) as client:
        yield client


async def listed(client: httpx.AsyncClient) -> dict[str, dict[str, Any]]:
    reply = await client.get("/hosts")
    assert reply.status_code == 200
    return {one["name"]: one for one in reply.json()["hosts"]}


async def joined(machine: NewMachine, admin: httpx.AsyncClient, name: str, **more: Any) -> Machine:
    made = await admin.post(f"/hosts/{name}/token", json={"expires_in": 60})
    assert made.status_code == 201
    one = machine(boot_id=f"boot of {name}", **more)
    assert (await one.join(made.json()["token"])).status_code == 200
    assert (await one.report()).status_code == 200
    return one


async def test_hosts_are_for_administrators(world: World) -> None:
    async for alice in client_of(world, "alice", admin=False):
        for method, path in (
            ("GET", "/hosts"),
            ("POST", "/hosts/rack-1/token"),
            ("DELETE", "/hosts/local"),
            ("POST", "/hosts/local/evacuate"),
        ):
            assert (await alice.request(method, path)).status_code == 403


async def test_a_host_is_followed_from_its_token_to_its_end(
    world: World, admin: httpx.AsyncClient, machine: NewMachine
) -> None:
    await world.report()
    await admin.post("/hosts/rack-1/token")
    assert (await listed(admin))["rack-1"]["state"] == "joining"
    one = await joined(machine, admin, "rack-1")
    await one.report(labels={"zone": "a"}, homes="nas")
    shown = (await listed(admin))["rack-1"]
    assert shown["state"] == "ready"
    assert shown["capacity"]["cores"] == 4
    assert (shown["labels"], shown["homes"], shown["servers"]) == ({"zone": "a"}, "nas", 0)
    assert (await admin.post("/hosts/rack-1/drain")).json()["state"] == "draining"
    assert (await listed(admin))["rack-1"]["state"] == "draining"
    assert (await admin.delete("/hosts/rack-1/drain")).json()["state"] == "ready"
    world.clock.advance(40)
    assert (await listed(admin))["rack-1"]["state"] == "unreachable"
    assert (await admin.delete("/hosts/rack-1")).status_code == 204
    assert (await listed(admin))["rack-1"]["state"] == "gone"
    assert (await one.report()).status_code == 401, "removed without leaving: refused from then on"
    assert (await admin.delete("/hosts/rack-1")).status_code == 404
    await joined(machine, admin, "rack-1")
    assert (await listed(admin))["rack-1"]["state"] == "ready"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "word"),
    [
        ("DELETE", "/hosts/local", None, 409, "in the hub's settings"),
        ("DELETE", "/hosts/nowhere", None, 404, ""),
        ("POST", "/hosts/local/token", None, 409, "need not join"),
        ("POST", "/hosts/No_Name/token", None, 400, "cannot be a host's name"),
        ("POST", "/hosts/rack-1/token", {"expires_in": True}, 400, "a week at most"),
        ("DELETE", "/hosts/local", {"servers": "all"}, 400, "lost"),
        ("DELETE", "/hosts/local/accounts/nobody", None, 404, ""),
    ],
)
async def test_what_cannot_be_is_said(
    admin: httpx.AsyncClient, method: str, path: str, body: Any, status: int, word: str
) -> None:
    reply = await admin.request(method, path, json=body)
    assert reply.status_code == status
    assert word in reply.json()["message"]


async def test_draining_places_nothing_and_evacuating_ends_what_is_there(
    world: World, admin: httpx.AsyncClient
) -> None:
    row = await world.ready()
    await admin.post("/hosts/local/drain")
    other = await world.drive(await world.start("bob"))
    assert other.progress_message == "Waiting: host local is draining"
    assert (await world.row(row)).state == "ready"
    reply = await admin.post("/hosts/local/evacuate")
    assert (reply.status_code, reply.json()["stopping"]) == (202, [row.id])
    ended = await world.drive(row)
    assert (ended.state, world.agent.stops[0][0]) == ("stopped", row.id)
    assert "host local is being emptied" in ended.stop_reason


async def test_a_host_with_servers_is_removed_only_when_they_are_said_to_be_lost(
    world: World, admin: httpx.AsyncClient, machine: NewMachine
) -> None:
    one = await joined(machine, admin, "rack-1")
    row = await world.start()
    async with world.hub.database.write() as session:
        row = await session.get_one(Server, row.id)
        row.host, row.state, row.target = "rack-1", "ready", "running"
        session.add(row)
    refused = await admin.delete("/hosts/rack-1")
    assert (refused.status_code, "evacuate it first" in refused.text) == (409, True)
    leaving = await one.call("POST", "/internal/v1/agents/rack-1/leave")
    assert leaving.status_code == 409
    lost = await admin.request("DELETE", "/hosts/rack-1", json={"servers": "lost"})
    assert "reports, so its servers are not lost" in lost.json()["message"]
    world.clock.advance(40)
    lost = await admin.request("DELETE", "/hosts/rack-1", json={"servers": "lost"})
    assert lost.status_code == 204
    ended = await world.row(row)
    assert ended.state == "failed"
    assert ended.failure is not None
    assert ended.failure["summary"] == "Its host, rack-1, was taken away."


async def account(world: World, uid: int, agent: FakeAgent | None = None) -> None:
    """Have what the agent starts run as this uid."""
    agent = agent or world.agent
    facts = AccountFacts(account="alice", uid=uid, gid=uid, home="/home/alice")
    for server_id, report in agent.servers.items():
        agent.servers[server_id] = report.model_copy(update={"account": facts})


async def test_who_somebody_is_on_a_host_is_pinned_at_the_first_start(
    world: World, admin: httpx.AsyncClient
) -> None:
    world.agent.instant = False
    await world.report()
    row = await world.drive(await world.start())
    assert world.agent.specs[-1].uid is None
    await account(world, 1001)
    await world.report()
    async with world.hub.database.read() as session:
        pin = await session.get_one(HostAccount, (row.user_id, "local"))
    assert (pin.account, pin.uid, pin.home) == ("alice", 1001, "/home/alice")
    world.agent.end(row.id, cause="exited", code=1)
    await world.report()

    row = await world.drive(await world.start())
    assert world.agent.specs[-1].uid == 1001, "the agent is to refuse any other"
    world.agent.put(row.id, row.generation, ServerState.STARTING)
    await account(world, 1002)
    await world.report()
    ended = await world.row(row)
    assert ended.state == "stopping"
    assert ended.failure is not None
    assert "was uid 1001 on host local and is 1002 now" in ended.failure["summary"]
    await world.drive(row)

    assert (await admin.delete("/hosts/local/accounts/alice")).status_code == 204
    await world.drive(await world.start())
    assert world.agent.specs[-1].uid is None


async def test_hosts_with_the_same_homes_must_agree_on_who_somebody_is(
    world: World, admin: httpx.AsyncClient, machine: NewMachine
) -> None:
    one = await joined(machine, admin, "rack-1")
    await one.report(homes="nas")
    world.agent.instant = False
    await world.report()
    await admin.post("/hosts/rack-1/drain")
    row = await world.start()
    async with world.hub.database.write() as session:
        session.add(
            HostAccount(
                user_id=row.user_id,
                host="rack-1",
                account="alice",
                uid=1001,
                gid=1001,
                home="/home/alice",
                used_at=world.clock.now(),
            )
        )
    await world.drive(row)
    assert world.agent.specs[-1].uid is None, "homes of its own"
    world.agent.end(row.id, cause="exited", code=1)
    report = world.agent.report().model_copy(update={"homes": "nas"})
    from carrel_hub.spawns.reports import receive_report

    await receive_report(world.hub, "local", report)
    await world.drive(await world.start())
    assert world.agent.specs[-1].uid == 1001


@pytest.mark.parametrize("state", ["ready", "failed", "stopped", "starting", "unknown"])
async def test_a_host_speaks_for_what_was_placed_there_and_nothing_else(
    world: World, admin: httpx.AsyncClient, machine: NewMachine, state: str
) -> None:
    """SEC-35: a host that was taken over says of somebody's server elsewhere what it likes."""
    row = await world.ready()
    evil = await joined(machine, admin, "rack-1")
    for generation in (row.generation, row.generation + 1):
        claim = {
            "server_id": row.id,
            "generation": generation,
            "state": state,
            "runner": "exec",
            "target": "unix:/evil.sock",
            "peer_uid": 0,
            "exit": {"cause": "exited", "summary": "x", "at": world.clock.now().isoformat()},
        }
        assert (await evil.report(servers=[claim])).status_code == 200
        assert await evil.report(unchanged=[{"server_id": row.id, "generation": generation}])
        now = await world.row(row)
        assert now.model_dump() == row.model_dump()
    # Also while the server's own host is silent, which is when nobody contradicts.
    world.clock.advance(40)
    await evil.report(servers=[claim])
    await evil.report(servers=[claim])
    now = await world.row(row)
    assert (now.host, now.generation, now.address) == ("local", row.generation, row.address)
    assert now.secret == row.secret

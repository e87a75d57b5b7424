"""Managed services: run, watched and run again by an agent, as the settings say."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hub.users.conftest import NewPerson
from hub.world import World, make_settings, open_world
from pydantic import ValidationError
from sqlmodel import col, select

from carrel_hub.auth.digest import digest
from carrel_hub.db.models import Event, Service, ServiceRun, Token
from carrel_hub.services.driver import ServiceDriver
from carrel_hub.services.managed import want_none
from carrel_hub.services.runs import RunState
from carrel_hub.startup import apply_settings
from carrel_shared.wire.servers import ServerState

API = "http://127.0.0.1:8000/hub/api"
CULLER = {"name": "culler", "command": ["culler", "--timeout=60"], "user": "cullers"}
SITE = {
    "name": "site",
    "command": ["site"],
    "url": "http://127.0.0.1:9000",
    "api_token": "t" * 40,
    "cwd": "/srv",
    "environment": {"EXTRA": "1", "JUPYTERHUB_HOST": "mine"},
    "oauth_client_allowed_scopes": ["read:users!user"],
}


@asynccontextmanager
async def managing(*services: dict[str, Any], **changes: Any) -> AsyncIterator[World]:
    changes = {"api_url": API, **changes}
    async with open_world(services=list(services), **changes) as world:
        await apply_settings(world.hub)
        await world.report()
        yield world


async def runs(world: World) -> dict[str, ServiceRun]:
    async with world.hub.database.read() as session:
        return {run.service: run for run in (await session.exec(select(ServiceRun))).all()}


async def told(world: World, service: str) -> list[str]:
    async with world.hub.database.read() as session:
        statement = select(Event.kind).where(Event.subject == f"service:{service}")
        found = (await session.exec(statement.order_by(col(Event.id)))).all()
    return [kind for kind in found if not kind.startswith(("token.", "service.created"))]


async def test_a_service_is_run_with_what_the_contract_says() -> None:
    async with managing(CULLER, SITE) as world:
        await ServiceDriver(world.hub).turn()
        culler, site = sorted(world.agent.specs, key=lambda spec: spec.user)
        assert (culler.kind, culler.listen, culler.account) == ("service", "nowhere", "cullers")
        assert (culler.command, culler.runner) == (["culler", "--timeout=60"], "exec")
        assert (site.listen, site.port, site.cwd) == ("port", 9000, "/srv")
        assert site.base_url == "/services/site/"
        env = site.environment
        assert {name: env[name] for name in env if name != "JUPYTERHUB_API_TOKEN"} == {
            "JUPYTERHUB_SERVICE_NAME": "site",
            "JUPYTERHUB_API_URL": API,
            "JUPYTERHUB_BASE_URL": "/",
            "JUPYTERHUB_HOST": "mine",
            "JUPYTERHUB_USER": "",
            "JUPYTERHUB_SERVER_NAME": "",
            "JUPYTERHUB_CLIENT_ID": "service-site",
            "JUPYTERHUB_OAUTH_ACCESS_SCOPES": '["access:services", "access:services!service=site"]',
            "JUPYTERHUB_OAUTH_SCOPES": '["access:services", "access:services!service=site"]',
            "JUPYTERHUB_OAUTH_CLIENT_ALLOWED_SCOPES": '["read:users!user"]',
            "JUPYTERHUB_OAUTH_CALLBACK_URL": "/services/site/oauth_callback",
            "JUPYTERHUB_SERVICE_URL": "http://127.0.0.1:9000",
            "JUPYTERHUB_SERVICE_PREFIX": "/services/site/",
            "JUPYTERHUB_PUBLIC_URL": "",
            "JUPYTERHUB_PUBLIC_HUB_URL": "",
            "JUPYTERHUB_COOKIE_HOST_PREFIX_ENABLED": "0",
            "EXTRA": "1",
        }
        assert env["JUPYTERHUB_API_TOKEN"] == "t" * 40
        assert "JUPYTERHUB_SERVICE_URL" not in culler.environment
        made = culler.environment["JUPYTERHUB_API_TOKEN"]
        async with world.hub.database.read() as session:
            statement = select(Service.name).join(Token, col(Token.service_id) == Service.id)
            owner = (await session.exec(statement.where(Token.token_hash == digest(made)))).one()
        assert owner == "culler"
        assert not any(made in word for word in culler.command or ())
        assert {run.state for run in (await runs(world)).values()} == {"ready"}
        await world.push()
        assert world.proxy.routes["/services/site/"].targets == ["http://127.0.0.1:9000"]


async def test_what_ends_is_run_again_with_pauses_that_grow_until_it_is_steady() -> None:
    async with managing(CULLER) as world:
        driver = ServiceDriver(world.hub)
        await driver.turn()
        pauses = []
        for generation in (1, 2, 3):
            [run] = (await runs(world)).values()
            assert run.generation == generation
            world.agent.end(run.id, cause="exited", code=1, summary="No such module.")
            reply = await world.report()
            assert reply.forget == [run.id]
            [run] = (await runs(world)).values()
            assert (run.failure or {})["summary"] == "No such module."
            assert run.next_attempt_at is not None
            pauses.append((run.next_attempt_at - world.clock.now()).total_seconds())
            await driver.turn()
            assert (await runs(world))["culler"].generation == generation, "not before its time"
            world.clock.advance(pauses[-1])
            await driver.turn()
        assert 0.8 <= pauses[0] <= 1
        assert 1.6 <= pauses[1] <= 2
        assert 3.2 <= pauses[2] <= 4
        world.clock.advance(61)
        run = (await runs(world))["culler"]
        world.agent.end(run.id, cause="signalled", signal=9)
        await world.report()
        await driver.turn()
        assert (await runs(world))["culler"].generation == 5, "at once: it had run for a minute"
        assert (await told(world, "culler"))[:4] == [
            "service.starting",
            "service.ready",
            "service.ended",
            "service.starting",
        ]


async def test_a_restart_of_the_hub_leaves_a_service_alone_and_other_settings_do_not() -> None:
    async with managing(CULLER) as world:
        await ServiceDriver(world.hub).turn()
        await apply_settings(world.hub)
        await ServiceDriver(world.hub).turn()
        [run] = (await runs(world)).values()
        assert world.agent.launches == {(run.id, 1): 1}

        changed = make_settings(
            world.hub.settings.state_dir,
            api_url=API,
            services=[{**CULLER, "command": ["culler", "--timeout=5"]}],
        )
        world.change_settings(services=changed.services)
        await apply_settings(world.hub)
        driver = ServiceDriver(world.hub)
        await driver.turn()
        assert world.agent.specs[-1].command == ["culler", "--timeout=5"]
        assert world.agent.launches == {(run.id, 1): 1, (run.id, 2): 1}

        world.change_settings(services=[])
        await apply_settings(world.hub)
        await ServiceDriver(world.hub).turn()
        assert world.agent.servers[run.id].state == ServerState.STOPPED
        await apply_settings(world.hub)
        assert await runs(world) == {}


async def test_a_service_that_is_put_on_another_host_ends_first_and_begins_there() -> None:
    async with managing(CULLER, fleet_listen="0.0.0.0:1") as world:
        await ServiceDriver(world.hub).turn()
        [before] = (await runs(world)).values()
        changed = make_settings(
            world.hub.settings.state_dir,
            api_url=API,
            fleet_listen="0.0.0.0:1",
            services=[{**CULLER, "host": "rack-1"}],
        )
        world.change_settings(services=changed.services)
        await apply_settings(world.hub)
        driver = ServiceDriver(world.hub)
        await driver.turn()
        assert world.agent.servers[before.id].state == ServerState.STOPPED
        [run] = (await runs(world)).values()
        assert (run.host, run.state) == ("rack-1", RunState.STOPPED)
        await driver.turn()
        [run] = (await runs(world)).values()
        assert run.state == RunState.STARTING, "the next start is asked for there"


async def test_an_agent_that_is_away_changes_nothing() -> None:
    async with managing(CULLER) as world:
        driver = ServiceDriver(world.hub)
        await driver.turn()
        world.agent.switch.down = True
        world.clock.advance(1000)
        await driver.turn()
        [run] = (await runs(world)).values()
        assert (run.state, run.generation) == ("ready", 1)
        world.agent.switch.down = False
        world.agent.servers.clear()  # it lost its journal
        await world.report()
        await driver.turn()
        assert world.agent.launches == {(run.id, 1): 2}


async def test_a_lost_answer_starts_no_second_process() -> None:
    async with managing(CULLER) as world:
        driver = ServiceDriver(world.hub)
        world.agent.switch.lose_replies = True
        await driver.turn()
        world.agent.switch.lose_replies = False
        world.clock.advance(6)
        await driver.turn()
        [run] = (await runs(world)).values()
        assert (run.state, world.agent.launches) == ("ready", {(run.id, 1): 1})


async def test_what_the_host_refuses_is_told_and_tried_again_later() -> None:
    async with managing({**CULLER, "user": "root"}) as world:
        world.agent.refusal = (403, "account_refused", "'root' is root")
        driver = ServiceDriver(world.hub)
        await driver.turn()
        [run] = (await runs(world)).values()
        assert (run.state, (run.failure or {})["summary"]) == ("stopped", "'root' is root")
        assert await told(world, "culler") == ["service.starting", "service.ended"]
        world.agent.refusal = None
        world.clock.advance(61)
        await driver.turn()
        assert (await runs(world))["culler"].state == "ready"


async def test_all_end_with_the_console_and_come_back_with_the_next_hub() -> None:
    async with managing(CULLER) as world:
        await ServiceDriver(world.hub).turn()
        async with world.hub.database.write() as session:
            await want_none(session)
        driver = ServiceDriver(world.hub)
        await driver.turn()
        await driver.turn()
        assert (await runs(world))["culler"].state == "stopped"
        await apply_settings(world.hub)
        await ServiceDriver(world.hub).turn()
        assert (await runs(world))["culler"].state == "ready"


async def test_the_api_shows_pid_and_output(new_person: NewPerson, live: World) -> None:
    root = await new_person("root-of-hub", admin=True)
    settings = make_settings(live.hub.settings.state_dir, api_url=API, services=[CULLER])
    live.change_settings(services=settings.services, api_url=API)
    await apply_settings(live.hub)
    await ServiceDriver(live.hub).turn()
    run = (await runs(live))["culler"]
    live.agent.servers[run.id] = live.agent.servers[run.id].model_copy(update={"pid": 4711})
    async with live.hub.database.write() as session:
        row = await session.get_one(ServiceRun, run.id)
        row.pid = 4711
    model = (await root.get("/services/culler")).json()
    assert (model["pid"], model["command"]) == (4711, ["culler", "--timeout=60"])
    assert (await root.get("/services")).json()["culler"]["pid"] == 4711
    assert (await root.delete("/services/culler")).status_code == 405
    alice = await new_person("alice")
    assert (await alice.get("/services/culler/log")).status_code == 403
    await root.post("/services/other", json={})
    assert (await root.get("/services/other/log")).status_code == 404


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"command": ["x", "--token=" + "s" * 20], "api_token": "s" * 20}, "command holds"),
        ({"command": []}, "at least 1"),
        ({"command": ["x"], "url": "http://10.0.0.1:80"}, "127.0.0.1"),
        ({"user": "somebody"}, "with a command"),
        ({"command": ["x"], "host": "elsewhere"}, "no agent runs"),
        ({"command": ["x"], "cwd": "relative"}, "pattern"),
        ({"command": ["x"], "api_url": None}, "api_url"),
    ],
)
def test_what_cannot_be_run_is_refused_with_the_settings(
    changes: dict[str, Any], words: str, tmp_path: Any
) -> None:
    api_url = changes.pop("api_url", API)
    with pytest.raises(ValidationError, match=words):
        make_settings(tmp_path, api_url=api_url, services=[{"name": "x", **changes}])

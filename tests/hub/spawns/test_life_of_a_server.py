"""From a request to a ready server and back, with an agent that behaves and one that does not."""

import pytest
from hub.world import World, open_world

from carrel_hub.db.models import Server
from carrel_hub.spawns.profiles import ProfileSettings, directory_of
from carrel_shared.wire.servers import ServerState


async def test_a_start_ends_ready_with_its_route_in_the_proxy(world: World) -> None:
    await world.report()
    row = await world.settle(await world.start())
    assert (row.state, row.target, row.progress) == ("ready", "running", 100)
    route = world.proxy.routes["/user/alice/"]
    assert route.targets == [row.address]
    assert route.peer_uid == 1000
    assert route.access is not None
    assert (route.access.server_id, route.access.secret) == (row.id, row.secret)
    assert route.access.client_id == "jupyterhub-user-alice"
    assert await world.events(row) == [
        "server.created",
        "server.requested",
        "server.placed",
        "server.answers",
        "server.ready",
    ]
    assert await world.pending() == []


async def test_a_server_is_not_ready_before_the_proxy_has_its_route(world: World) -> None:
    await world.report()
    await world.push()
    row = await world.drive(await world.start())
    assert (row.state, row.progress) == ("starting", 90)
    await world.push()
    assert (await world.row(row)).state == "ready"


async def test_a_proxy_that_is_away_holds_nothing_up(world: World) -> None:
    await world.report()
    await world.push()
    row = await world.drive(await world.start())
    world.proxy.switch.down = True
    await world.push()
    assert (await world.row(row)).state == "ready"
    world.proxy.switch.down = False
    await world.push()
    assert "/user/alice/" in world.proxy.routes


async def test_each_start_has_a_secret_and_a_generation_of_its_own(world: World) -> None:
    first = await world.ready()
    await world.stop(first)
    await world.settle(first)
    second = await world.settle(await world.start())
    assert second.id == first.id
    assert second.generation == first.generation + 1
    assert [spec.generation for spec in world.agent.specs] == [1, 2]
    assert world.agent.specs[0].secret != world.agent.specs[1].secret
    assert world.agent.specs[1].secret == second.secret


async def test_the_spec_says_what_a_server_needs(world: World) -> None:
    row = await world.ready()
    spec = world.agent.specs[0]
    assert (spec.server_id, spec.user, spec.account) == (row.id, "alice", "alice")
    assert (spec.base_url, spec.hub_prefix) == ("/user/alice/", "/hub/")
    assert spec.environment["JUPYTERHUB_SERVICE_PREFIX"] == "/user/alice/"
    assert row.secret not in spec.environment.values()


async def test_a_stop_takes_the_route_first_and_ends_stopped(world: World) -> None:
    row = await world.ready()
    world.agent.stop_at_once = False
    await world.stop(row)
    await world.push()
    assert "/user/alice/" not in world.proxy.routes
    assert (await world.drive(row)).state == "stopping"
    world.agent.end(row.id, cause="stopped")
    await world.report()
    row = await world.row(row)
    assert (row.state, row.failure, row.secret) == ("stopped", None, "")
    assert world.agent.stops[0][1].reason == "enough"


async def test_a_start_that_is_stopped_at_once_never_reaches_an_agent(world: World) -> None:
    await world.report()
    row = await world.start()
    await world.stop(row)
    row = await world.drive(row)
    assert row.state == "stopped"
    assert world.agent.specs == []


async def test_a_stop_while_starting_cancels_the_start(world: World) -> None:
    world.agent.instant = False
    await world.report()
    row = await world.drive(await world.start())
    assert row.state == "starting"
    await world.stop(row)
    row = await world.drive(row)
    assert (row.state, row.failure) == ("stopped", None)
    assert world.agent.servers[row.id].state == ServerState.STOPPED


async def test_a_server_that_dies_fails_with_its_cause_and_loses_its_route(world: World) -> None:
    row = await world.ready()
    world.agent.end(row.id, cause="signalled", signal=9, summary="It was killed by signal 9.")
    reply = await world.report()
    row = await world.row(row)
    assert (row.state, row.target) == ("failed", "stopped")
    assert row.failure is not None
    assert (row.failure["signal"], row.failure["log_tail"]) == (9, ["last words"])
    assert reply.forget == [row.id]
    await world.push()
    assert "/user/alice/" not in world.proxy.routes


async def test_a_server_that_is_shut_down_from_within_is_stopped_not_failed(world: World) -> None:
    row = await world.ready()
    world.agent.end(row.id, cause="exited", code=0, summary="It exited with status 0.")
    await world.report()
    row = await world.row(row)
    assert (row.state, row.failure) == ("stopped", None)


async def test_a_start_that_ends_before_it_answers_has_failed_even_with_status_0(
    world: World,
) -> None:
    world.agent.instant = False
    await world.report()
    row = await world.drive(await world.start())
    world.agent.end(row.id, cause="exited", code=0, summary="It exited with status 0.")
    await world.report()
    row = await world.row(row)
    assert row.state == "failed"
    assert row.failure is not None
    assert row.failure["summary"] == "It exited with status 0."


async def test_a_host_that_refuses_a_start_fails_it_with_its_reason(world: World) -> None:
    world.agent.refusal = (400, "account_unknown", "this host has no account 'alice'")
    await world.report()
    row = await world.drive(await world.start())
    assert row.state == "failed"
    assert row.failure is not None
    assert "this host has no account 'alice'" in row.failure["summary"]


async def test_progress_goes_forward_with_the_agents_words(world: World) -> None:
    world.agent.instant = False
    await world.report()
    row = await world.drive(await world.start())
    seen = [row.progress]
    for words in ("Preparing", "Loading extensions", "Almost there"):
        world.agent.put(row.id, 1, ServerState.STARTING, progress=words)
        await world.report()
        row = await world.row(row)
        assert row.progress_message == words
        seen.append(row.progress)
    assert seen == sorted(seen)
    assert seen[-1] < 90


async def test_one_request_id_reaches_the_agent(world: World) -> None:
    import structlog

    await world.report()
    with structlog.contextvars.bound_contextvars(request_id="from-the-browser"):
        row = await world.start()
    await world.settle(row)
    assert world.agent.request_ids == ["from-the-browser"]


async def test_two_pairs_of_names_with_one_client_id_get_two(world: World) -> None:
    await world.report()
    await world.start("a-b")
    async with world.hub.database.write() as session:
        from carrel_hub.spawns.service import ensure_server
        from carrel_hub.users.accounts import get_or_create_user

        user = await get_or_create_user(session, "a", at=world.clock.now(), account="a")
        other = await ensure_server(session, user, "b", at=world.clock.now())
    assert other.client_id.startswith("jupyterhub-user-a-b-")
    async with world.hub.database.read() as session:
        from sqlmodel import select

        ids = (await session.exec(select(Server.client_id))).all()
    assert len(set(ids)) == 2


async def test_a_profile_says_where_its_servers_start() -> None:
    profiles = {"default": {"directory": "/srv/courses/{username}"}}
    async with open_world(profiles=profiles) as world:
        await world.report()
        await world.drive(await world.start("alice"))
        assert world.agent.specs[-1].cwd == "/srv/courses/alice"
    assert directory_of(ProfileSettings(directory="x/{username}"), "../b/c") == "x/..%2Fb%2Fc"


async def test_a_scratch_home_is_for_one_start(world: World) -> None:
    await world.report()
    await world.push()
    first = await world.settle(await world.start(user_options={"scratch_home": ["1"], "n": 1}))
    await world.stop(first)
    await world.settle(first)
    second = await world.settle(await world.start())
    assert [spec.scratch_home for spec in world.agent.specs] == [True, False]
    assert second.user_options == {"n": 1}


async def test_a_host_hears_what_its_profiles_would_have_loaded(world: World) -> None:
    lab = ProfileSettings(preload=["numpy", "jupyter_lsp"])
    other = ProfileSettings(preload=["pandas"], labels={"zone": "b"})
    program = ProfileSettings(preload=["scipy"], command=["/opt/lab"])
    world.change_settings(profiles={"default": lab, "other": other, "program": program})
    assert (await world.report()).preload == ["numpy", "jupyter_lsp"]
    with pytest.raises(ValueError, match="preload"):
        ProfileSettings(preload=["os; import sys"])

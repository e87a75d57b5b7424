"""Agents that are away, late, forgetful or strange. Unknown is not dead; nothing happens twice."""

import pytest
from hub.fakes import FakeAgent
from hub.world import World, open_world

from carrel_hub.errors import ConflictError
from carrel_hub.spawns.reports import receive_report
from carrel_shared.wire.servers import ServerState


async def test_a_start_waits_for_an_agent_that_is_away_and_goes_on_when_it_is_back(
    world: World,
) -> None:
    await world.report()
    world.agent.switch.down = True
    row = await world.drive(await world.start())
    assert row.state == "queued"
    assert row.progress_message.startswith("Waiting: the agent of host 'local' does not answer")
    world.clock.advance(10)
    world.agent.switch.down = False
    assert (await world.settle(row)).state == "ready"
    assert world.agent.launches[row.id, 1] == 1


async def test_a_start_is_given_up_in_plain_words_when_the_agent_stays_away(world: World) -> None:
    await world.report()
    world.agent.switch.down = True
    row = await world.drive(await world.start())
    for _ in range(20):
        world.clock.advance(4)
        row = await world.drive(row)
    assert (row.state, row.target) == ("failed", "stopped")
    assert row.failure is not None
    assert "given up after 60 seconds" in row.failure["summary"]
    assert "does not answer" in row.failure["summary"]


async def test_tries_are_backed_off(world: World) -> None:
    await world.report()
    world.agent.switch.down = True
    row = await world.drive(await world.start())
    waits = []
    for _ in range(8):
        assert row.next_attempt_at is not None
        wait = (row.next_attempt_at - world.clock.now()).total_seconds()
        waits.append(wait)
        world.clock.advance(wait)
        row = await world.drive(row)
    assert waits[0] < 1
    assert 3 < waits[-1] <= 5


async def test_no_host_is_chosen_that_has_not_reported(world: World) -> None:
    row = await world.drive(await world.start())
    assert row.progress_message == "Waiting: host local has not reported yet"
    await world.report()
    world.clock.advance(1)
    assert (await world.settle(row)).state == "ready"


async def test_a_lost_answer_starts_no_second_process(world: World) -> None:
    await world.report()
    world.agent.switch.lose_replies = True
    row = await world.drive(await world.start())
    assert row.state == "queued"
    world.agent.switch.lose_replies = False
    world.clock.advance(5)
    row = await world.settle(row)
    assert row.state == "ready"
    assert world.agent.launches == {(row.id, 1): 1}


async def test_what_comes_up_after_it_was_given_up_is_stopped_and_stays_failed(
    world: World,
) -> None:
    await world.report()
    world.agent.switch.lose_replies = True
    row = await world.drive(await world.start())
    world.clock.advance(61)
    row = await world.drive(row)
    assert row.state == "failed"
    summary = (row.failure or {})["summary"]
    world.agent.switch.lose_replies = False
    await world.report()
    row = await world.drive(row)
    assert world.agent.servers[row.id].state == ServerState.STOPPED
    await world.report()
    row = await world.row(row)
    assert row.state == "failed"
    assert (row.failure or {})["summary"] == summary


async def test_a_new_start_first_ends_what_an_old_one_left_running() -> None:
    async with open_world(agent_silence_seconds=1000) as world:
        await world.report()
        world.agent.switch.lose_replies = True
        row = await world.drive(await world.start())
        world.clock.advance(61)
        await world.drive(row)
        world.agent.switch.lose_replies = False
        await world.drive(await world.start())
        world.clock.advance(5)
        row = await world.settle(row)
        assert (row.state, row.generation) == ("ready", 2)
        assert world.agent.launches == {(row.id, 1): 1, (row.id, 2): 1}


async def test_a_server_that_never_answers_is_stopped_and_fails(world: World) -> None:
    world.agent.instant = False
    await world.report()
    row = await world.drive(await world.start())
    world.clock.advance(71)
    row = await world.drive(row)
    assert row.state == "failed"
    assert row.failure is not None
    assert row.failure["cause"] == "never_ready"
    assert row.failure["log_tail"] == ["last words"]
    assert world.agent.servers[row.id].state == ServerState.STOPPED


async def test_what_came_up_while_the_hub_was_away_is_kept_however_long_that_was(
    world: World,
) -> None:
    world.agent.instant = False
    await world.report()
    lost = await world.start("bob")
    world.agent.switch.lose_replies = True
    await world.drive(lost)
    world.agent.switch.lose_replies = False
    starting = await world.drive(await world.start("alice"))
    world.clock.advance(3600)
    for row in (lost, starting):
        world.agent.put(row.id, 1, ServerState.READY)
        assert (await world.settle(row)).state == "ready"
    assert world.agent.stops == []


async def test_a_silent_host_makes_its_servers_unknown_and_keeps_their_routes(
    world: World,
) -> None:
    row = await world.ready()
    for _ in range(2):
        world.clock.advance(36)
        await world.reconciler._scan()
    row = await world.row(row)
    assert row.state == "unknown"
    await world.push()
    assert "/user/alice/" in world.proxy.routes
    assert world.agent.stops == []
    await world.report()
    row = await world.row(row)
    assert row.state == "ready"
    assert (await world.events(row))[-2:] == ["server.unknown", "server.returned"]
    assert world.proxy.routes["/user/alice/"].access is not None


async def test_a_hub_that_was_away_calls_no_agent_silent_at_once(world: World) -> None:
    row = await world.ready()
    world.clock.advance(3600)
    world.reconciler.__init__(world.hub)  # type: ignore[misc]
    await world.reconciler._scan()
    assert (await world.row(row)).state == "ready"


async def test_a_stop_of_an_unknown_server_is_done_when_its_host_is_back(world: World) -> None:
    row = await world.ready()
    world.agent.switch.down = True
    world.clock.advance(100)
    await world.reconciler._scan()
    await world.stop(row)
    row = await world.drive(row)
    assert row.state == "stopping"
    world.agent.switch.down = False
    world.clock.advance(5)
    assert (await world.drive(row)).state == "stopped"
    assert world.agent.servers[row.id].state == ServerState.STOPPED


async def test_a_server_its_agent_forgot_is_unknown_not_stopped(world: World) -> None:
    row = await world.ready()
    world.agent.servers.clear()
    await world.report()
    row = await world.row(row)
    assert (row.state, row.route_number is None) == ("unknown", False)
    await world.stop(row)
    assert (await world.drive(row)).state == "stopped"


async def test_reports_that_come_late_twice_or_out_of_order_change_nothing(world: World) -> None:
    world.agent.instant = False
    await world.report()
    row = await world.drive(await world.start())
    starting = world.agent.report()
    world.agent.put(row.id, 1, ServerState.READY)
    ready = world.agent.report()
    await receive_report(world.hub, "local", ready)
    await world.settle(row)
    await receive_report(world.hub, "local", starting)
    await receive_report(world.hub, "local", ready)
    row = await world.row(row)
    assert row.state == "ready"
    assert (await world.events(row)).count("server.answers") == 1


async def test_a_report_of_an_earlier_generation_is_stale(world: World) -> None:
    first = await world.ready()
    await world.stop(first)
    await world.settle(first)
    row = await world.settle(await world.start())
    ended = world.agent.servers[row.id]
    world.agent.end(row.id, cause="exited", code=1)
    old = world.agent.servers[row.id].model_copy(update={"generation": 1})
    world.agent.servers[row.id] = old
    reply = await world.report()
    world.agent.servers[row.id] = ended
    assert (await world.row(row)).state == "ready"
    assert reply.forget == [row.id]


async def test_two_agents_of_one_name_are_told_apart_and_the_second_refused(world: World) -> None:
    await world.report()
    twin = FakeAgent(instance="instance-2")
    await receive_report(world.hub, "local", twin.report())
    with pytest.raises(ConflictError, match="two agents must not share"):
        await receive_report(world.hub, "local", world.agent.report())
    await receive_report(world.hub, "local", twin.report())


async def test_a_server_the_database_does_not_know_is_noted_once_and_left_alone(
    world: World,
) -> None:
    world.agent.put("abcdefabcdef", 7, ServerState.READY)
    for _ in range(3):
        await world.report()
    assert world.agent.stops == []
    from sqlmodel import select

    from carrel_hub.db.models import Event

    async with world.hub.database.read() as session:
        events = (await session.exec(select(Event).where(Event.server_id == "abcdefabcdef"))).all()
    assert [event.kind for event in events] == ["server.surprise"]


async def test_after_a_restore_the_higher_generation_goes_on_and_nothing_is_killed(
    world: World,
) -> None:
    row = await world.ready()
    world.agent.put(row.id, 9, ServerState.READY)
    await world.report()
    row = await world.row(row)
    assert (row.state, row.generation, row.route_number) == ("unknown", 9, None)
    assert world.agent.stops == []
    await world.report()
    assert (await world.row(row)).state == "unknown"
    await world.stop(row)
    assert (await world.drive(row)).state == "stopped"
    row = await world.settle(await world.start())
    assert (row.state, row.generation) == ("ready", 10)


async def test_a_start_below_the_agents_generation_goes_on_above_it(world: World) -> None:
    await world.report()
    row = await world.start()
    world.agent.put(row.id, 5, ServerState.STARTING)
    world.agent.end(row.id, cause="exited", code=0)
    row = await world.drive(row)
    world.clock.advance(5)
    row = await world.settle(row)
    assert (row.state, row.generation) == ("ready", 6)


async def test_an_account_that_no_host_runs_is_said_plainly() -> None:
    async with open_world(agent=FakeAgent(accounts="bob")) as world:
        await world.report()
        row = await world.drive(await world.start())
        assert "runs servers of the account 'bob' only, not 'alice'" in row.progress_message

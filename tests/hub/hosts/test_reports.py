"""Reports that name what has not changed, and how the hub gets what it lacks all the same."""

from hub.world import World

from carrel_hub.db.models import Server
from carrel_hub.spawns.reports import receive_report
from carrel_shared.wire.agents import Running


async def test_a_server_of_which_nothing_is_new_is_named_alone(world: World) -> None:
    row = await world.ready()
    brief = Running(server_id=row.id, generation=row.generation)
    report = world.agent.report().model_copy(update={"servers": [], "unchanged": [brief]})
    reply = await receive_report(world.hub, "local", report)
    assert reply.repeat == []
    assert (await world.row(row)).state == "ready"


async def test_what_the_hub_has_otherwise_it_asks_for(world: World) -> None:
    row = await world.ready()
    async with world.hub.database.write() as session:
        current = await session.get_one(Server, row.id)
        current.state = "unknown"
        session.add(current)
    brief = Running(server_id=row.id, generation=row.generation)
    stranger = Running(server_id="0123456789ab", generation=1)
    newer = Running(server_id=row.id, generation=row.generation + 1)
    report = world.agent.report()
    for unchanged, asked in (([brief], [row.id]), ([stranger], [stranger.server_id])):
        brief_report = report.model_copy(update={"servers": [], "unchanged": unchanged})
        assert (await receive_report(world.hub, "local", brief_report)).repeat == asked
    await world.report()
    assert (await world.row(row)).state == "ready"
    report = world.agent.report().model_copy(update={"servers": [], "unchanged": [newer]})
    assert (await receive_report(world.hub, "local", report)).repeat == [row.id]


async def test_a_server_that_is_not_named_at_all_is_unknown(world: World) -> None:
    row = await world.ready()
    report = world.agent.report().model_copy(update={"servers": []})
    await receive_report(world.hub, "local", report)
    assert (await world.row(row)).state == "unknown"

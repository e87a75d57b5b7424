"""The history: complete for each server, readable by whom it is for, and kept for a while."""

from datetime import timedelta

from hub.users.conftest import NewPerson
from hub.web.site import Site, open_site
from hub.world import World

from carrel_hub.db.models import Event
from carrel_hub.events import record
from carrel_hub.events.retention import AT_A_TIME, prune
from carrel_shared.wire.servers import ServerState


async def test_a_history_tells_who_did_what_and_why(new_person: NewPerson, live: World) -> None:
    alice = await new_person("alice")
    root = await new_person("root-of-hub", admin=True)
    await alice.post("/users/alice/server")
    await root.delete("/users/alice/server")
    live.agent.instant = False
    live.change_settings(slow_spawn_seconds=0)
    await alice.post("/users/alice/server")
    [server_id] = live.agent.servers
    while live.agent.servers[server_id].generation < 2:
        await live.hub.wakeups.wait(1)
    live.agent.end(server_id, cause="signalled", signal=9, summary="Killed: out of memory.")
    await live.report()

    reply = await alice.get("/users/alice/server/events")
    assert reply.status_code == 200
    told = [(event["kind"], event["actor"]) for event in reversed(reply.json()["events"])]
    assert told == [
        ("server.created", "user:alice"),
        ("server.requested", "user:alice"),
        ("server.placed", "hub"),
        ("server.answers", "agent:local"),
        ("server.ready", "hub"),
        ("server.stop_requested", "user:root-of-hub"),
        ("server.stopped", "agent:local"),
        ("server.requested", "user:alice"),
        ("server.placed", "hub"),
        ("server.starting", "agent:local"),
        ("server.failed", "agent:local"),
    ]
    failed = reply.json()["events"][0]
    assert (failed["message"], failed["generation"]) == ("Killed: out of memory.", 2)
    assert failed["data"].pop("seconds") >= 0, "how long the start had taken"
    assert failed["data"] == {"cause": "signalled", "code": None, "signal": 9}
    stopped = next(e for e in reply.json()["events"] if e["kind"] == "server.stop_requested")
    assert stopped["message"] == "root-of-hub stopped it"
    assert live.agent.servers[server_id].state == ServerState.FAILED


async def test_a_history_is_its_owners_and_the_whole_an_administrators(
    new_person: NewPerson,
) -> None:
    alice, bob = await new_person("alice"), await new_person("bob")
    root = await new_person("root-of-hub", admin=True)
    half = await new_person("half", admin=True, scopes=["admin:users", "read:servers"])
    assert (await alice.get("/users/alice/server/events")).json() == {"events": [], "next": None}
    await alice.post("/users/alice/server")
    assert (await alice.get("/users/alice/server/events")).json()["events"]
    assert (await bob.get("/users/alice/server/events")).status_code == 404
    assert (await alice.get("/users/alice/servers/lab/events")).status_code == 404
    for person, status in ((root, 200), (alice, 403), (half, 403)):
        assert (await person.get("/events")).status_code == status
    page = (await root.get("/events?actor=user:alice&limit=1")).json()
    assert [event["actor"] for event in page["events"]] == ["user:alice"]
    following = (await root.get(page["next"])).json()
    assert following["events"][0]["id"] < page["events"][0]["id"]
    assert following["events"][0]["actor"] == "user:alice"
    for wrong in ("limit=x", "before=-1", "before=99999999999999999999", "since=yesterday"):
        assert (await root.get(f"/events?{wrong}")).status_code == 400, wrong
    assert (await root.get("/events?until=2020-01-01T00:00:00Z")).json()["events"] == []
    kinds = (await root.get("/events?kind=token.created&subject=user:bob")).json()["events"]
    assert [event["subject"] for event in kinds] == ["user:bob"]


async def test_people_see_their_servers_history_and_administrators_who_did_what() -> None:
    async with open_site() as site:
        alice = await site.signed_in("alice")
        await site.world.ready("alice")
        home = await alice.get("/hub/home")
        assert 'href="/hub/history/alice"' in home.text
        page = await alice.get("/hub/history/alice")
        assert page.status_code == 200
        for words in ("Start asked for", "Ready", "the host local", "alice"):
            assert words in page.text
        first = await alice.get("/hub/history/alice?limit=2")
        assert 'id="older" href="/hub/history/alice?limit=2&amp;before=' in first.text
        assert (await alice.get("/hub/audit")).status_code == 403
        bob = await site.signed_in("bob")
        assert (await bob.get("/hub/history/alice")).status_code == 404
        root = await site.signed_in("root-of-hub", admin=True)
        assert 'href="/hub/audit"' in (await root.get("/hub/admin")).text
        audit = await root.get("/hub/audit?actor=user:alice")
        assert "session.signed_in" in audit.text
        assert "<td>bob</td>" not in audit.text
        assert (await root.get("/hub/history/alice")).status_code == 200


async def test_what_is_older_than_history_days_goes_and_nothing_else(site: Site) -> None:
    site.world.change_settings(history_days=30)
    async with site.hub.database.write() as session:
        for days in (31, 29):
            at = site.clock.now() - timedelta(days=days)
            for number in range(AT_A_TIME + 1 if days == 31 else 3):
                record(session, "test.happened", f"user:{number}", "user:x", at=at)
    assert await prune(site.hub) == AT_A_TIME + 1
    assert await prune(site.hub) == 0
    assert len(await site.all(Event)) == 3

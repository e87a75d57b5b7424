"""Sharing servers over the REST API: given, listed, taken away, given back."""

import httpx
import pytest
from hub.shares.conftest import NewPerson
from hub.world import World
from sqlmodel import select

from carrel_hub.db.models import Event, RouteChange
from carrel_hub.spawns.service import ensure_server

LAB = "/shares/alice/lab"
OPEN = "access:servers!server=alice/lab"
WITH_BOB = "/users/bob/shared/alice/lab"


async def revoked_servers(world: World) -> list[str]:
    async with world.hub.database.read() as session:
        payloads = (await session.exec(select(RouteChange.payload))).all()
    return [p["revocation"]["server_id"] for p in payloads if p["op"] == "revoke"]


async def test_a_server_is_shared_and_the_share_ends(
    alice: httpx.AsyncClient, new_person: NewPerson, live: World
) -> None:
    bob = await new_person("bob")
    assert (await bob.get("/users/alice/servers/lab")).status_code == 404
    given = await alice.post(LAB, json={"user": "bob"})
    assert given.status_code == 200
    model = given.json()
    assert model == {
        "server": {
            "user": {"name": "alice"}, "name": "lab", "url": "/user/alice/lab/",
            "full_url": "https://hub.test/user/alice/lab/", "ready": False,
        },
        "scopes": [OPEN], "user": {"name": "bob"}, "group": None, "kind": "user",
        "created_at": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    assert OPEN in (await bob.get("/user")).json()["scopes"]
    for address in (LAB, "/shares/alice"):
        listed = (await alice.get(address)).json()
        assert listed["items"] == [model]
        assert listed["_pagination"] == {"offset": 0, "limit": 200, "total": 1, "next": None}
    assert (await bob.get("/users/bob/shared")).json()["items"] == [model]
    assert (await bob.get(WITH_BOB)).json() == model

    more = {"user": "bob", "scopes": ["read:servers", "access:servers!server=alice/lab"]}
    both = ["access:servers!server=alice/lab", "read:servers!server=alice/lab"]
    assert (await alice.post(LAB, json=more)).json()["scopes"] == both, "beside what there was"
    seen = await bob.get("/users/alice/servers/lab")
    assert (seen.status_code, seen.json()["full_name"]) == (200, "alice/lab")
    known = (await bob.get("/users/alice?include_stopped_servers=1")).json()
    assert known.keys() == {"kind", "name", "admin", "user_info", "servers"}
    assert known["servers"].keys() == {"lab"}

    assert await revoked_servers(live) == [], "nothing was taken away so far"
    less = {"user": "bob", "scopes": ["read:servers"]}
    assert (await alice.patch(LAB, json=less)).json()["scopes"] == [OPEN]
    assert (await bob.get("/users/alice/servers/lab")).status_code == 404
    assert (await alice.patch(LAB, json=less)).json()["scopes"] == [OPEN], "it has none of these"
    assert len(await revoked_servers(live)) == 1
    ended = await alice.patch(LAB, json={"user": "bob"})
    assert (ended.status_code, ended.json()) == (200, {})
    assert OPEN not in (await bob.get("/user")).json()["scopes"]
    assert (await bob.get(WITH_BOB)).status_code == 404
    assert len(await revoked_servers(live)) == 2
    async with live.hub.database.read() as session:
        found = select(Event.kind, Event.actor).where(Event.kind.startswith("share."))
        events = (await session.exec(found)).all()
    assert {actor for _, actor in events} == {"user:alice"}
    assert [kind for kind, _ in events] == [
        "share.granted", "share.granted", "share.revoked", "share.revoked",
    ]  # fmt: skip


async def test_a_group_has_what_is_shared_with_it_while_one_is_in_it(
    alice: httpx.AsyncClient, new_person: NewPerson, live: World
) -> None:
    """JupyterHub forgets these shares for tokens (contract 12); here they count."""
    root, bob = await new_person("root-of-hub", admin=True), await new_person("bob")
    await root.post("/groups/team", json={"users": ["bob"]})
    given = await alice.post(LAB, json={"group": "team"})
    assert (given.json()["kind"], given.json()["group"]) == ("group", {"name": "team"})
    assert OPEN in (await bob.get("/user")).json()["scopes"]
    assert [one["kind"] for one in (await bob.get("/users/bob/shared")).json()["items"]] == [
        "group"
    ]
    assert (await bob.get(WITH_BOB)).status_code == 404, "it was not given to bob by name"
    assert (await root.get("/groups/team/shared")).json()["_pagination"]["total"] == 1
    assert (await root.get("/groups/team/shared/alice/lab")).status_code == 200

    async with live.hub.database.write() as session:
        server = await ensure_server(session, await live.user("alice"), "lab", at=live.clock.now())
        server.route_number = 1
        session.add(server)
    await root.request("DELETE", "/groups/team/users", json={"users": ["bob"]})
    assert OPEN not in (await bob.get("/user")).json()["scopes"]
    assert await revoked_servers(live) == [server.id], "whoever has it open is asked about"

    await root.post("/groups/team/users", json={"users": ["bob"]})
    assert OPEN in (await bob.get("/user")).json()["scopes"]
    assert (await root.delete("/groups/team/shared/alice/lab")).status_code == 204
    assert OPEN not in (await bob.get("/user")).json()["scopes"]
    assert (await root.delete("/groups/team/shared/alice/lab")).status_code == 404

    await alice.post(LAB, json={"group": "team"})
    assert (await root.delete("/groups/team")).status_code == 204
    assert (await alice.get(LAB)).json()["items"] == []
    assert await revoked_servers(live) == [server.id] * 3


async def test_whoever_was_given_a_server_may_give_it_back(
    alice: httpx.AsyncClient, new_person: NewPerson
) -> None:
    bob, carol = await new_person("bob"), await new_person("carol")
    await alice.post(LAB, json={"user": "bob"})
    assert (await carol.get(WITH_BOB)).status_code == 404
    assert (await carol.delete(WITH_BOB)).status_code == 404
    assert (await carol.get("/users/bob/shared")).status_code == 404
    assert (await bob.delete(WITH_BOB)).status_code == 204
    assert (await bob.delete(WITH_BOB)).status_code == 404
    assert (await alice.get(LAB)).json()["items"] == []
    assert (await carol.get("/groups/team/shared")).status_code == 404


async def test_all_shares_of_a_server_end_at_once_and_with_it(
    alice: httpx.AsyncClient, new_person: NewPerson, live: World
) -> None:
    bob, _ = await new_person("bob"), await new_person("carol")
    for name in ("bob", "carol"):
        await alice.post(LAB, json={"user": name})
    assert (await alice.delete(LAB)).status_code == 204
    assert (await alice.delete(LAB)).status_code == 204
    assert (await alice.get("/shares/alice")).json()["_pagination"]["total"] == 0
    assert len(await revoked_servers(live)) == 1
    await alice.post(LAB, json={"user": "bob"})
    removed = await alice.request("DELETE", "/users/alice/servers/lab", json={"remove": True})
    assert removed.status_code == 204
    assert (await bob.get("/users/bob/shared")).json()["items"] == []
    assert (await bob.get(WITH_BOB)).status_code == 404


async def test_a_share_goes_with_its_server_under_another_name(
    alice: httpx.AsyncClient, new_person: NewPerson
) -> None:
    bob = await new_person("bob")
    await alice.post(LAB, json={"user": "bob"})
    assert (await alice.patch("/users/alice/servers/lab", json={"name": "desk"})).status_code == 200
    [share] = (await bob.get("/users/bob/shared")).json()["items"]
    assert share["scopes"] == ["access:servers!server=alice/desk"]
    await alice.put("/users/alice/servers/lab")
    scopes = (await bob.get("/user")).json()["scopes"]
    assert "access:servers!server=alice/desk" in scopes
    assert OPEN not in scopes, "another server that has the old name now is not shared"


@pytest.mark.parametrize(
    "body",
    [
        None, {}, [], {"user": "bob", "group": "team"}, {"user": 1}, {"user": ""},
        {"user": "bob", "more": 1}, {"user": "bob", "scopes": "access:servers"},
        {"user": "bob", "scopes": ["nonsense"]}, {"user": "bob", "scopes": [1]},
        {"user": "bob", "scopes": ["access:servers!server=alice/"]},
        {"user": "bob", "scopes": ["access:servers!user=alice"]},
        {"user": "bob", "scopes": ["access:servers!user"]},
        {"user": "bob", "scopes": ["read:users"]}, {"user": "bob", "scopes": ["custom:other"]},
        {"user": "nobody"}, {"group": "nothing"},
    ],
)  # fmt: skip
async def test_bodies_that_make_no_sense(
    alice: httpx.AsyncClient, new_person: NewPerson, body: object
) -> None:
    await new_person("bob")
    reply = await alice.post(LAB, json=body)
    assert reply.status_code == 400, reply.text
    assert reply.json()["message"]


async def test_taking_away_from_nobody_takes_nothing_and_tells_nothing(
    alice: httpx.AsyncClient, new_person: NewPerson
) -> None:
    await new_person("bob")
    for recipient in ({"user": "bob"}, {"user": "nobody"}, {"group": "nothing"}):
        reply = await alice.patch(LAB, json=recipient)
        assert (reply.status_code, reply.json()) == (200, {})


async def test_the_default_server_is_the_one_without_a_name(
    alice: httpx.AsyncClient, new_person: NewPerson, live: World
) -> None:
    bob = await new_person("bob")
    for never_started in ("/shares/alice/", "/share-codes/alice/"):
        assert (await alice.get(never_started)).json()["items"] == []
        assert (await alice.delete(never_started)).status_code == 204
    assert (await alice.patch("/shares/alice/", json={"user": "bob"})).json() == {}
    for method in ("POST", "PATCH", "DELETE"):
        for kind in ("shares", "share-codes"):
            if (method, kind) != ("PATCH", "share-codes"):
                reply = await alice.request(method, f"/{kind}/alice", json={"user": "bob"})
                assert reply.status_code == 405, "a server must be named"
    given = await alice.post("/shares/alice/", json={"user": "bob"})
    assert given.json()["scopes"] == ["access:servers!server=alice/"]
    assert (await bob.get("/users/bob/shared/alice/")).json() == given.json()
    assert (await bob.delete("/users/bob/shared/alice/")).status_code == 204
    assert (await alice.delete("/shares/alice/")).status_code == 204


async def test_nobody_shares_what_is_not_theirs_to_give(
    alice: httpx.AsyncClient, new_person: NewPerson
) -> None:
    bob, carol = await new_person("bob"), await new_person("carol")
    assert (await bob.post(LAB, json={"user": "bob"})).status_code == 404
    assert (await bob.get("/shares/alice")).status_code == 404
    await alice.post(LAB, json={"user": "bob", "scopes": ["shares"]})
    assert (await bob.post(LAB, json={"user": "carol"})).status_code == 200, "bob may pass it on"
    more = {"user": "carol", "scopes": ["start:servers"]}
    refused = await bob.post(LAB, json=more)
    assert refused.status_code == 403
    assert "start:servers!server=alice/lab" in refused.json()["message"]
    assert (await bob.get("/shares/alice/nothing")).status_code == 404
    assert (await bob.get("/shares/alice")).status_code == 404, "it is about one server"
    assert (await bob.get(LAB)).json()["_pagination"]["total"] == 2
    held = ["shares!user"]
    narrow = await new_person("alice", scopes=held)
    assert (await narrow.post(LAB, json={"user": "bob"})).status_code == 403, (
        "a token that may not name bob does not tell whether there is one"
    )
    only_reads = await new_person("alice", scopes=["read:shares!user"])
    assert (await only_reads.get(LAB)).status_code == 200
    assert (await only_reads.post(LAB, json={"user": "bob"})).status_code == 403
    del carol


async def test_a_manager_of_a_group_gives_nobody_what_they_do_not_have(
    alice: httpx.AsyncClient, new_person: NewPerson
) -> None:
    """Who fills a group hands out what is shared with it, to themselves for a start."""
    root = await new_person("root-of-hub", admin=True)
    await root.post("/groups/team")
    await alice.post(LAB, json={"group": "team"})
    await new_person("mallory")
    limited = await new_person("root-of-hub", scopes=["groups!group=team", "read:users:name"])
    reply = await limited.post("/groups/team/users", json={"users": ["mallory"]})
    assert reply.status_code == 403
    assert "shared with a group" in reply.json()["message"]
    assert (await root.post("/groups/team/users", json={"users": ["mallory"]})).status_code == 200


async def test_custom_scopes_are_shared_like_others(
    alice: httpx.AsyncClient, new_person: NewPerson
) -> None:
    await new_person("bob")
    wanted = {"user": "bob", "scopes": ["custom:notes:read"]}
    assert (await alice.post(LAB, json=wanted)).status_code == 403, "alice has it not herself"


async def test_lists_come_in_pages_whatever_is_accepted(
    alice: httpx.AsyncClient, new_person: NewPerson
) -> None:
    for number in range(3):
        await new_person(f"guest{number}")
        await alice.post(LAB, json={"user": f"guest{number}"})
    page = (await alice.get(f"{LAB}?limit=2")).json()
    assert [one["user"]["name"] for one in page["items"]] == ["guest0", "guest1"]
    following = page["_pagination"]["next"]
    assert following["url"] == "http://hub/hub/api/shares/alice/lab?offset=2&limit=2"
    rest = (await alice.get(following["url"])).json()
    assert [one["user"]["name"] for one in rest["items"]] == ["guest2"]
    assert (rest["_pagination"]["total"], rest["_pagination"]["next"]) == (3, None)
    opted_in = {"Accept": "application/jupyterhub-pagination+json"}
    assert (await alice.get(LAB, headers=opted_in)).json()["_pagination"]["limit"] == 50
    assert (await alice.get(f"{LAB}?limit=x")).status_code == 400
    assert (await alice.get("/shares/nobody")).status_code == 404

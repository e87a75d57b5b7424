"""Listing, making, changing and deleting users over the REST API."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
from hub.users.conftest import NewPerson
from hub.world import World
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.db.engine import Database
from carrel_hub.db.models import Group, UserGroup
from carrel_hub.users.last_used import LastUsed

PAGED = {"Accept": "text/html, Application/jupyterhub-pagination+json"}


async def put_in_group(world: World, group: str, *names: str) -> None:
    async with world.hub.database.write() as session:
        row = Group(name=group, created=world.hub.clock.now())
        session.add(row)
        await session.flush()
        assert row.id is not None
        for name in names:
            user = await world.user(name)
            assert user.id is not None
            session.add(UserGroup(group_id=row.id, user_id=user.id))


async def test_many_users_are_made_at_once_and_those_who_exist_left_out(
    new_person: NewPerson, live: World
) -> None:
    root = await new_person("root-of-hub", admin=True)
    made = await root.post("/users", json={"usernames": ["Bob", "carol", "bob"]})
    assert made.status_code == 201
    assert [user["name"] for user in made.json()] == ["bob", "carol"]
    again = await root.post("/users", json={"usernames": ["bob", "dave"]})
    assert [user["name"] for user in again.json()] == ["dave"]
    assert (await root.post("/users", json={"usernames": ["bob"]})).status_code == 409
    assert (await root.post("/users/bob")).status_code == 409
    assert (await live.user("bob")).account == "bob", "as when bob signs in with the password"


async def test_a_host_for_one_account_gives_that_account_only(
    new_person: NewPerson, live: World
) -> None:
    live.agent.accounts = "me"
    await live.report()
    root = await new_person("root-of-hub", admin=True)
    await root.post("/users", json={"usernames": ["me", "you"]})
    assert (await live.user("me")).account == "me"
    assert (await live.user("you")).account is None


@pytest.mark.parametrize(
    "body",
    [
        None, [], {}, {"usernames": []}, {"usernames": "bob"}, {"usernames": [3]},
        {"usernames": ["ok", "a/b"]}, {"usernames": [".."]}, {"usernames": [""]},
        {"usernames": ["root"]}, {"usernames": ["ok"], "admin": "yes"},
        {"usernames": ["ok"], "colour": "red"},
    ],
)  # fmt: skip
async def test_what_cannot_be_made_is_refused_as_a_whole(
    new_person: NewPerson, body: object
) -> None:
    root = await new_person("root-of-hub", admin=True)
    reply = await (root.post("/users") if body is None else root.post("/users", json=body))
    assert reply.status_code == 400
    assert (await root.get("/users/ok")).status_code == 404


async def test_pages_lead_from_one_to_the_next(new_person: NewPerson) -> None:
    root = await new_person("a-root", admin=True)
    await root.post("/users", json={"usernames": [f"u{n}" for n in range(4)]})
    names: list[str] = []
    url = "/users?name_filter=U&limit=3&empty="
    while url:
        reply = (await root.get(url, headers=PAGED)).json()
        names += [user["name"] for user in reply["items"]]
        assert reply["_pagination"]["total"] == 4
        following = reply["_pagination"]["next"]
        url = following["url"] if following else ""
        assert not url or (url == "http://hub/hub/api/users?name_filter=U&empty=&offset=3&limit=3")
    assert names == ["u0", "u1", "u2", "u3"]
    plain = await root.get("/users?limit=-2&offset=-1")
    assert [user["name"] for user in plain.json()] == ["u0", "u1"]
    assert len((await root.get("/users?limit=0")).json()) == 1
    weighted = await root.get("/users", headers={"Accept": f"{PAGED['Accept']};q=1"})
    assert isinstance(weighted.json(), list)
    page = (await root.get("/users", headers=PAGED)).json()["_pagination"]
    assert (page["limit"], page["next"]) == (50, None)
    forwarded = await root.get(
        "/users?limit=1", headers={**PAGED, "Host": "h.example:81", "X-Forwarded-Proto": "https"}
    )
    url = forwarded.json()["_pagination"]["next"]["url"]
    assert urlsplit(url)[:3] == ("https", "h.example:81", "/hub/api/users")


@pytest.mark.parametrize("sort", ["id", "-id", "name"])
async def test_a_page_is_the_same_from_either_end(
    new_person: NewPerson, live: World, sort: str
) -> None:
    root = await new_person("a-root", admin=True)
    await root.post("/users", json={"usernames": [f"u{n}" for n in range(7)]})
    await root.delete("/users/u2")
    await live.ready("u1")
    await live.ready("u6")
    await root.post("/groups/late", json={"users": ["u5", "u6"]})
    everybody = (await root.get(f"/users?sort={sort}")).json()
    assert len(everybody) == 7
    for limit in (1, 2, 3):
        for offset in range(9):
            query = f"/users?sort={sort}&limit={limit}&offset={offset}"
            assert (await root.get(query)).json() == everybody[offset : offset + limit]
            described = (await root.get(query, headers=PAGED)).json()
            assert described["items"] == everybody[offset : offset + limit]
            assert described["_pagination"]["total"] == 7


@pytest.mark.parametrize(
    "query", ["limit=x", "offset=1.5", "state=sleepy", "sort=created", "sort=--id", "sort="]
)
async def test_a_list_that_makes_no_sense_is_refused(new_person: NewPerson, query: str) -> None:
    root = await new_person("root-of-hub", admin=True)
    assert (await root.get(f"/users?{query}")).status_code == 400


async def test_order_state_and_parts_of_names(new_person: NewPerson, live: World) -> None:
    root = await new_person("root-of-hub", admin=True)
    await root.post("/users", json={"usernames": ["b_x", "a_x", "cx"]})
    await live.ready("b_x")
    await root.post("/users/b_x/activity", json={"last_activity": "2024-01-02T03:04:05Z"})

    async def names(query: str) -> list[str]:
        return [user["name"] for user in (await root.get(f"/users?name_filter=X&{query}")).json()]

    assert await names("sort=name") == ["a_x", "b_x", "cx"]
    assert await names("sort=-id") == ["cx", "a_x", "b_x"]
    assert await names("sort=last_activity") == ["a_x", "cx", "b_x"]
    assert await names("sort=-last_activity") == ["b_x", "cx", "a_x"]
    assert await names("state=active") == ["b_x"]
    assert await names("state=ready") == ["b_x"]
    assert await names("state=inactive") == ["a_x", "cx"]
    for state, wanted in (("active", {"b_x"}), ("inactive", {"root-of-hub", "a_x", "cx"})):
        everybody = (await root.get(f"/users?state={state}")).json()
        assert {user["name"] for user in everybody} == wanted
    assert len((await root.get("/users?state=")).json()) == 4
    assert [user["name"] for user in (await root.get("/users?name_filter=_x")).json()] == [
        "b_x", "a_x",
    ]  # fmt: skip
    await root.delete("/users/b_x/server")
    assert (await root.get("/users/b_x")).json()["servers"] == {}
    [shown] = (await root.get("/users?name_filter=b_x&include_stopped_servers=1")).json()
    assert shown["servers"][""]["stopped"] is True


async def test_who_is_not_there_is_said_before_what_is_wrong(new_person: NewPerson) -> None:
    root = await new_person("root-of-hub", admin=True)
    for method, path in (
        ("PATCH", "/users/nobody"), ("POST", "/users/nobody/activity"),
        ("POST", "/users/nobody/server"), ("PATCH", "/users/nobody/servers/lab"),
        ("DELETE", "/users/nobody/server"), ("POST", "/groups/nothing/users"),
        ("PUT", "/groups/nothing/properties"),
    ):  # fmt: skip
        assert (await root.request(method, path, content=b"{")).status_code == 404, path
    not_json = await root.post("/users", content=b'{"usernames": NaN}')
    assert (not_json.status_code, not_json.json()["message"][:12]) == (400, "Invalid JSON")
    for name in (" bob", "bob "):
        assert (await root.post("/users", json={"usernames": [name]})).status_code == 400


async def test_everybody_has_a_default_server(new_person: NewPerson) -> None:
    root = await new_person("root-of-hub", admin=True)
    await new_person("bob")
    for query in (
        "/users/bob?include_stopped_servers",
        "/users?name_filter=bob&include_stopped_servers",
    ):
        shown = (await root.get(query)).json()
        server = (shown[0] if isinstance(shown, list) else shown)["servers"][""]
        assert (server["stopped"], server["url"]) == (True, "/user/bob/")
    assert (await root.get("/users/bob")).json()["servers"] == {}
    when = {"last_activity": "2024-01-02T03:04:05Z"}
    said = await root.post("/users/bob/activity", json={"servers": {"": when}})
    assert said.status_code == 200
    assert (await root.post("/users/bob/activity", json={"servers": {}})).status_code == 400


async def test_a_list_shows_whom_the_scope_is_for_and_no_more(
    new_person: NewPerson, live: World
) -> None:
    for name in ("bob", "carol", "dave"):
        await new_person(name)
    await put_in_group(live, "lab", "carol")
    held = ["list:users!user=bob", "list:users!group=lab", "read:users:groups!group=lab"]
    limited = await new_person("root-of-hub", admin=True, scopes=held)
    reply = (await limited.get("/users", headers=PAGED)).json()
    assert [user["name"] for user in reply["items"]] == ["bob", "carol"]
    assert reply["_pagination"]["total"] == 2
    bob, carol = reply["items"]
    assert "groups" not in bob
    assert carol["groups"] == ["lab"]
    assert (await limited.get("/users/carol")).status_code == 200
    assert (await limited.get("/users/dave")).status_code == 404
    by_server = await new_person("root-of-hub", scopes=["list:users!server=bob/"])
    assert (await by_server.get("/users")).status_code == 403
    assert (await (await new_person("bob")).get("/users")).status_code == 403


async def test_a_filtered_scope_makes_no_users_but_the_one_it_names(
    new_person: NewPerson,
) -> None:
    """ADV-10."""
    limited = await new_person("root-of-hub", admin=True, scopes=["admin:users!user=bob"])
    assert (await limited.post("/users", json={"usernames": ["bob"]})).status_code == 403
    assert (await limited.post("/users/carol")).status_code == 404
    assert (await limited.post("/users/BOB")).status_code == 404
    assert (await limited.post("/users/bob")).status_code == 201


async def test_nobody_makes_or_touches_an_administrator_but_an_administrator(
    new_person: NewPerson, live: World
) -> None:
    """ADV-05."""
    await new_person("boss", admin=True)
    most = ["admin:users", "admin:servers", "admin:groups", "tokens", "shares", "proxy"]
    helper = await new_person("root-of-hub", admin=True, scopes=most)
    await helper.post("/users/bob")
    for reply in (
        await helper.post("/users", json={"usernames": ["eve"], "admin": True}),
        await helper.post("/users/eve", json={"admin": True}),
        await helper.patch("/users/bob", json={"admin": True}),
        await helper.patch("/users/boss", json={"admin": False}),
        await helper.patch("/users/boss", json={"name": "other"}),
        await helper.delete("/users/boss"),
    ):
        assert reply.status_code == 403
    assert (await live.user("boss")).admin
    assert not (await live.user("bob")).admin
    root = await new_person("root-of-hub")
    made = (await root.patch("/users/bob", json={"admin": True})).json()
    assert (made["admin"], made["roles"], made["auth_state"]) == (True, ["admin", "user"], None)
    lost = (await root.patch("/users/bob", json={"admin": False})).json()
    assert (lost["admin"], lost["roles"]) == (False, ["user"])


async def test_renaming(new_person: NewPerson, live: World) -> None:
    root = await new_person("root-of-hub", admin=True)
    bob = await new_person("bob")
    assert (await root.patch("/users/bob", json={"name": "bob"})).json()["name"] == "bob"
    assert (await root.patch("/users/bob", json={"name": "Robert"})).json()["name"] == "robert"
    assert (await root.get("/users/bob")).status_code == 404
    assert (await bob.get("/user")).json()["name"] == "robert"
    assert (await live.user("robert")).account == "bob", "a name here is no unix account"
    taken = await root.patch("/users/robert", json={"name": "root-of-hub"})
    assert (taken.status_code, "exists" in taken.json()["message"]) == (400, True)
    await root.post("/users/robert/server")
    assert (await root.patch("/users/robert", json={"name": "bob"})).status_code == 400


async def test_tokens_of_a_renamed_user_end_unless_an_administrator_renames(
    new_person: NewPerson,
) -> None:
    """Else whoever is renamed to a colleague would act as them once they sign in."""
    helper = await new_person("root-of-hub", admin=True, scopes=["admin:users"])
    bob = await new_person("bob")
    assert (await helper.patch("/users/bob", json={"name": "carol"})).status_code == 200
    assert (await bob.get("/user")).status_code == 403


@pytest.mark.parametrize(
    "body",
    [
        None, [], {"admin": 1}, {"name": None}, {"name": "a/b"}, {"what": True}, {"groups": "x"},
        {"auth_state": []}, {"auth_state": {"secret": 1}},
    ],
)  # fmt: skip
async def test_changes_that_make_no_sense(new_person: NewPerson, body: object) -> None:
    root = await new_person("root-of-hub", admin=True)
    await new_person("bob")
    assert (await root.patch("/users/bob", json=body)).status_code == 400


async def test_deleting_stops_the_server_and_ends_all_access(
    new_person: NewPerson, live: World
) -> None:
    root, bob = await new_person("root-of-hub", admin=True), await new_person("bob")
    assert (await root.post("/users/bob/server")).status_code == 201
    await put_in_group(live, "lab", "bob")
    reply = await root.delete("/users/bob")
    assert (reply.status_code, reply.content) == (204, b"")
    assert [report.state for report in live.agent.servers.values()] == ["stopped"]
    assert (await bob.get("/user")).status_code == 403
    assert (await root.delete("/users/bob")).status_code == 404
    assert (await root.post("/users/bob")).json()["groups"] == []
    assert (await root.delete("/users/root-of-hub")).status_code == 400


async def test_activity_only_moves_forward(new_person: NewPerson) -> None:
    root, bob = await new_person("root-of-hub", admin=True), await new_person("bob")
    for sent in ("2024-05-01T02:00:00+02:00", "2023-01-01T00:00:00Z", "2024-04-30 23:00"):
        reply = await bob.post("/users/bob/activity", json={"last_activity": sent})
        assert (reply.status_code, reply.content) == (200, b"")
    root_sees = (await root.get("/users?name_filter=bob")).json()[0]["last_activity"]
    assert root_sees > "2024-05-01T00:00:00Z", "the token was used since"
    assert (await bob.post("/users/root-of-hub/activity", json={})).status_code == 404
    assert (
        await root.post("/users/nobody/activity", json={"last_activity": "2024-01-01"})
    ).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {}, [], {"last_activity": "yesterday"}, {"last_activity": None}, {"last_activity": 5},
        {"last_activity": "9999-01-01T00:00:00Z"}, {"servers": []}, {"servers": {"": {}}},
        {"servers": {"": 5}}, {"servers": {"nope": {"last_activity": "2024-01-01T00:00:00Z"}}},
    ],
)  # fmt: skip
async def test_activity_that_makes_no_sense(new_person: NewPerson, body: object) -> None:
    bob = await new_person("bob")
    assert (await bob.post("/users/bob/activity", json=body)).status_code == 400


async def test_long_lists_take_few_queries_and_little_time(
    new_person: NewPerson, live: World
) -> None:
    root = await new_person("root-of-hub", admin=True)
    began = time.process_time()
    made = await root.post("/users", json={"usernames": [f"person-{n}" for n in range(500)]})
    assert (made.status_code, len(made.json())) == (201, 500)
    assert time.process_time() - began < 3, "well under a second on a quiet machine"
    queries: list[str] = []
    reader = live.hub.database._reader.sync_engine
    event.listen(reader, "before_cursor_execute", lambda *call: queries.append(call[2]))
    counts = []
    await root.get("/users?limit=1")  # from here on the hub knows who asks
    for limit in (10, 100):
        queries.clear()
        assert len((await root.get(f"/users?limit={limit}")).json()) == limit
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 10


async def test_reports_that_come_together_are_written_together(
    new_person: NewPerson, live: World
) -> None:
    root = await new_person("root-of-hub", admin=True)
    names = [f"p{n}" for n in range(30)]
    await root.post("/users", json={"usernames": names})
    sent = {"last_activity": "2024-01-02T03:04:05Z"}
    before = live.hub.database.writes
    replies = await asyncio.gather(*(root.post(f"/users/{n}/activity", json=sent) for n in names))
    assert {reply.status_code for reply in replies} == {200}
    assert live.hub.database.writes - before < 10
    shown = (await root.get("/users?name_filter=p")).json()
    assert {user["last_activity"] for user in shown} == {"2024-01-02T03:04:05Z"}
    before = live.hub.database.writes
    await root.post("/users/p1/activity", json=sent)
    assert live.hub.database.writes == before, "nothing new is nothing to write"


async def test_no_report_is_confirmed_that_was_not_written(world: World) -> None:
    database, at = world.hub.database, world.clock.now()
    alice = await world.ready("alice")
    user = await world.user("alice")
    assert user.id is not None
    last_used = LastUsed()

    async def fail(_self: Database) -> AsyncIterator[AsyncSession]:
        raise OperationalError("", None, Exception("the disk is full"))
        yield

    later = at + timedelta(hours=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Database, "write", asynccontextmanager(fail))
        both = await asyncio.gather(
            last_used.write(database, {user.id: later}, {}),
            last_used.write(database, {}, {alice.id: later}),
            return_exceptions=True,
        )
    assert [type(result) for result in both] == [OperationalError, OperationalError]
    await last_used.write(database, {}, {alice.id: later})
    assert (await world.row(alice)).last_activity == later

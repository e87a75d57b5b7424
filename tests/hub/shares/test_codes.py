"""Share codes: made, listed, exchanged, ended."""

import re

import httpx
import pytest
from hub.shares.conftest import NewPerson
from hub.world import World
from sqlmodel import select

from carrel_hub.db.models import ShareCode
from carrel_hub.shares.codes import exchange, find_code

CODES = "/share-codes/alice/lab"
OPEN = "access:servers!server=alice/lab"


async def is_good(world: World, code: str) -> bool:
    async with world.hub.database.read() as session:
        return await find_code(session, world.hub, code) is not None


async def test_a_code_is_shown_once_and_kept_as_a_hash(
    alice: httpx.AsyncClient, live: World
) -> None:
    made = await alice.post(CODES)
    assert made.status_code == 200
    model = made.json()
    code = model.pop("code")
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", code)
    assert model.pop("accept_url") == f"/hub/accept-share?code={code}"
    assert model.pop("full_accept_url") == f"https://hub.test/hub/accept-share?code={code}"
    assert model == {
        "server": {
            "user": {"name": "alice"}, "name": "lab", "url": "/user/alice/lab/",
            "full_url": "https://hub.test/user/alice/lab/", "ready": False,
        },
        "scopes": [OPEN], "id": "sc_1", "created_at": "2026-01-01T00:00:00Z",
        "expires_at": "2026-01-02T00:00:00Z", "exchange_count": 0, "last_exchanged_at": None,
    }  # fmt: skip
    for address in (CODES, "/share-codes/alice"):
        assert (await alice.get(address)).json()["items"] == [model]
    async with live.hub.database.read() as session:
        [row] = (await session.exec(select(ShareCode))).all()
    assert code not in repr(row)


async def test_a_code_is_exchanged_by_many_and_what_they_got_outlives_it(
    alice: httpx.AsyncClient, new_person: NewPerson, live: World
) -> None:
    code = (await alice.post(CODES, json={"expires_in": 60})).json()["code"]
    people = [await new_person(name) for name in ("bob", "carol")]
    for name in ("bob", "carol"):
        async with live.hub.database.write() as session:
            offered = await find_code(session, live.hub, code)
            assert offered is not None
            await exchange(session, live.hub, offered, await live.user(name))
    [shown] = (await alice.get(CODES)).json()["items"]
    assert (shown["exchange_count"], shown["last_exchanged_at"]) == (2, "2026-01-01T00:00:00Z")
    live.clock.advance(59)
    assert await is_good(live, code)
    live.clock.advance(1)
    assert not await is_good(live, code)
    listed = (await alice.get(CODES)).json()
    assert (listed["items"], listed["_pagination"]["total"]) == ([], 0)
    for person in people:
        assert OPEN in (await person.get("/user")).json()["scopes"]
    assert (await alice.get("/shares/alice/lab")).json()["_pagination"]["total"] == 2


async def test_codes_are_deleted_by_themselves_by_number_and_all(
    alice: httpx.AsyncClient, live: World
) -> None:
    codes = [(await alice.post(CODES)).json() for _ in range(4)]
    assert (await alice.delete(f"{CODES}?code={codes[0]['code']}")).status_code == 204
    assert (await alice.delete(f"{CODES}?id={codes[1]['id']}")).status_code == 204
    for gone in (f"code={codes[0]['code']}", f"id={codes[1]['id']}", "id=1", "id=sc_x", "code=x"):
        assert (await alice.delete(f"{CODES}?{gone}")).status_code == 404, gone
    await alice.put("/users/alice/servers/desk")
    other = (await alice.post("/share-codes/alice/desk")).json()
    assert (await alice.delete(f"{CODES}?code={other['code']}")).status_code == 404
    assert (await alice.delete(f"{CODES}?id={other['id']}")).status_code == 404
    assert (await alice.delete(CODES)).status_code == 204
    assert [await is_good(live, one["code"]) for one in (*codes, other)] == [False] * 4 + [True]
    assert (await alice.get("/share-codes/alice")).json()["_pagination"]["total"] == 1


@pytest.mark.parametrize(
    "body",
    [
        {"expires_in": 59}, {"expires_in": 31536001}, {"expires_in": "60"}, {"expires_in": True},
        {"expires_in": None}, {"user": "bob"}, [], {"scopes": ["nonsense"]},
        {"scopes": ["access:servers!server=alice/"]},
    ],
)  # fmt: skip
async def test_bodies_that_make_no_sense(alice: httpx.AsyncClient, body: object) -> None:
    assert (await alice.post(CODES, json=body)).status_code == 400


async def test_a_code_is_worth_what_its_issuer_may_share(
    alice: httpx.AsyncClient, new_person: NewPerson, live: World
) -> None:
    """Else whoever is shut out would keep a way back in."""
    bob = await new_person("bob")
    assert (await bob.post(CODES)).status_code == 404
    await alice.post("/shares/alice/lab", json={"user": "bob", "scopes": ["shares"]})
    beyond = await bob.post(CODES, json={"scopes": ["start:servers"]})
    assert beyond.status_code == 403
    code = (await bob.post(CODES)).json()["code"]
    assert await is_good(live, code)
    await alice.patch("/shares/alice/lab", json={"user": "bob"})
    assert not await is_good(live, code)
    await alice.post("/shares/alice/lab", json={"user": "bob", "scopes": ["shares"]})
    assert await is_good(live, code)
    root = await new_person("root-of-hub", admin=True)
    assert (await root.delete("/users/bob")).status_code == 204
    assert not await is_good(live, code)


async def test_what_is_no_code_is_nothing(alice: httpx.AsyncClient, live: World) -> None:
    await alice.post(CODES)
    for text in ("", "x", "x" * 10_000, "\0"):
        assert not await is_good(live, text)


async def test_reading_codes_needs_a_right_of_its_own(
    alice: httpx.AsyncClient, new_person: NewPerson
) -> None:
    await alice.post(CODES)
    bob = await new_person("bob")
    for method, address in (
        ("GET", CODES), ("GET", "/share-codes/alice"), ("DELETE", CODES), ("GET", "/shares/alice"),
    ):  # fmt: skip
        assert (await bob.request(method, address)).status_code == 404
    reads = await new_person("alice", scopes=["read:shares!user"])
    assert (await reads.get(CODES)).status_code == 200
    assert (await reads.post(CODES)).status_code == 403
    assert (await reads.delete(CODES)).status_code == 403
    assert (await alice.get("/share-codes/alice/nothing")).status_code == 404

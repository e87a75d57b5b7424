"""What one member keeps with a server is shown to others, who must not be harmed by it."""

import json

import pytest
from hub.users.conftest import NewPerson
from hub.world import World
from sqlmodel import select

from carrel_hub.db.models import Server
from carrel_hub.spawns.choice import MOST_OPTIONS

_DEEP = '{"a":' + "[" * 250 + "]" * 250 + "}"


@pytest.mark.parametrize(
    "body",
    ['{"a": "\\ud800"}', '{"\\udfff": 1}', '{"a": 1e999}', '{"a": NaN}', _DEEP],
    ids=["half a pair", "in a key", "too large", "no number", "deep"],
)
async def test_what_could_not_be_written_again_is_refused(body: str, new_person: NewPerson) -> None:
    bob, admin = await new_person("bob"), await new_person("ada", admin=True)
    for method, path in (("POST", "server"), ("PATCH", "server"), ("POST", "tokens")):
        reply = await bob.request(method, f"/users/bob/{path}", content=body)
        assert (reply.status_code, reply.json()["message"]) == (
            400,
            "Invalid JSON in body of request",
        )
    assert (await admin.get("/users?include_stopped_servers")).status_code == 200


async def test_a_pair_in_two_halves_is_one_character(new_person: NewPerson) -> None:
    bob = await new_person("bob")
    assert (await bob.post("/users/bob/server", content='{"a": "\\ud83d\\ude00"}')).is_success
    server = (await bob.get("/users/bob/server")).json()
    assert server["user_options"] == {"a": "😀"}


async def test_what_is_stored_already_does_not_take_a_list_from_others(
    live: World, new_person: NewPerson
) -> None:
    bob, admin = await new_person("bob"), await new_person("ada", admin=True)
    assert (await bob.post("/users/bob/server")).status_code == 201
    async with live.hub.database.write() as session:
        row = (await session.exec(select(Server))).one()
        row.user_options = {"a": "\ud800", "deep": json.loads(_DEEP)}
        session.add(row)
    for path in ("/users", "/users/bob", "/users/bob/server"):
        assert (await admin.get(path)).status_code == 200


async def test_options_have_an_end(new_person: NewPerson) -> None:
    bob = await new_person("bob")
    for body in ({"a": "x" * MOST_OPTIONS}, {"user_options": {"a": "x" * MOST_OPTIONS}}):
        reply = await bob.post("/users/bob/server", json=body)
        assert reply.status_code == 400
        assert "too long" in reply.json()["message"]
    assert (await bob.post("/users/bob/server", json={"a": "x" * 1000})).is_success

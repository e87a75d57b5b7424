"""Tokens over the REST API."""

from datetime import timedelta

import pytest
from hub.users.conftest import NewPerson
from hub.world import World
from sqlmodel import select

from carrel_hub.auth.tokens import issue_token
from carrel_hub.db.models import RouteChange, Token


async def test_a_token_is_made_used_and_revoked(new_person: NewPerson) -> None:
    bob, somebody = await new_person("bob"), await new_person(None)
    made = await bob.post("/users/bob/tokens")
    assert made.status_code == 201
    token = made.json()
    assert (token["user"], token["kind"], token["roles"]) == ("bob", "api_token", [])
    assert (token["note"], token["oauth_client"]) == ("Requested via api", "JupyterHub")
    assert (token["expires_at"], token["last_activity"]) == (None, None)
    assert "access:servers!user=bob" in token["scopes"]
    somebody.headers["Authorization"] = f"token {token['token']}"
    me = (await somebody.get("/user")).json()
    assert (me["name"], me["token_id"]) == ("bob", token["id"])
    path = f"/users/bob/tokens/{token['id']}"
    shown = (await bob.get(path)).json()
    assert "token" not in shown
    listed = (await bob.get("/users/bob/tokens")).json()["api_tokens"]
    assert token["id"] in {one["id"] for one in listed}
    assert (await somebody.delete(path)).status_code == 204
    assert (await somebody.get("/user")).status_code == 403
    assert (await bob.get(path)).status_code == 404


async def test_a_token_for_somebody_else_says_who_asked(new_person: NewPerson) -> None:
    root = await new_person("root-of-hub", admin=True)
    await new_person("bob")
    made = (await root.post("/users/bob/tokens", json={"expires_in": 60})).json()
    assert made["note"] == "Requested via api by user root-of-hub"
    assert made["expires_at"] > made["created"]
    noted = (await root.post("/users/bob/tokens", json={"note": "mine"})).json()
    assert noted["note"] == "mine"


async def test_scopes_are_kept_as_asked_and_shown_as_they_count(new_person: NewPerson) -> None:
    bob = await new_person("bob")
    body = {"scopes": ["read:servers!user"], "colour": "red"}
    made = (await bob.post("/users/bob/tokens", json=body)).json()
    assert made["scopes"] == [
        "read:servers!user=bob", "read:users:groups!user=bob", "read:users:name!user=bob",
    ]  # fmt: skip
    by_role = await bob.post("/users/bob/tokens", json={"roles": ["user"]})
    assert "servers!user=bob" in by_role.json()["scopes"]
    of_no_role = await bob.post("/users/bob/tokens", json={"roles": []})
    assert "servers!user=bob" not in of_no_role.json()["scopes"]


@pytest.mark.parametrize(
    "body",
    [
        [1], {"expires_in": "soon"}, {"expires_in": 0}, {"expires_in": True},
        {"expires_in": 10**12}, {"scopes": "read:users"}, {"scopes": [1]}, {"scopes": ["all"]},
        {"scopes": ["no:such"]}, {"scopes": ["servers!colour=red"]}, {"roles": "user"},
        {"roles": ["nobody"]}, {"roles": ["user"], "scopes": ["servers!user"]}, {"note": 5},
        {"scopes": ["admin:users"]}, {"scopes": ["servers"]}, {"roles": ["admin"]},
        {"scopes": ["servers!user=carol"]}, {"scopes": ["identify"]},
    ],
)  # fmt: skip
async def test_what_no_token_can_be(new_person: NewPerson, body: object) -> None:
    """Not even an administrator gives a token more than its owner has."""
    await new_person("bob")
    root = await new_person("root-of-hub", admin=True)
    assert (await root.post("/users/bob/tokens", json=body)).status_code == 400


async def test_nobody_makes_a_token_that_may_more_than_they(
    new_person: NewPerson, live: World
) -> None:
    await new_person("boss", admin=True)
    await new_person("bob")
    helper = await new_person("root-of-hub", admin=True, scopes=["tokens", "read:servers"])
    for name in ("boss", "bob", "root-of-hub"):
        asked = await helper.post(f"/users/{name}/tokens", json={"scopes": ["inherit"]})
        assert asked.status_code == 403
        made = await helper.post(f"/users/{name}/tokens")
        assert made.status_code == 201, "as much as the helper has itself"
        may = {scope.partition("!")[0] for scope in made.json()["scopes"]}
        assert may <= {
            "tokens",
            "read:tokens",
            "read:servers",
            "read:users:name",
            "read:users:groups",
        }
    narrow = await helper.post("/users/bob/tokens", json={"scopes": ["read:servers!user=bob"]})
    assert narrow.status_code == 201
    small = await new_person("bob", scopes=["tokens!user=bob"])
    assert "servers!user=bob" not in (await small.post("/users/bob/tokens")).json()["scopes"]


async def test_a_helper_makes_no_token_that_grows_with_its_owner(
    new_person: NewPerson, live: World
) -> None:
    root = await new_person("root-of-hub", admin=True)
    somebody = await new_person(None)
    await new_person("bob")
    everything_of_bob = ["tokens", "servers", "users", "users:shares", "read:shares",
                         "access:servers"]  # fmt: skip
    helper = await new_person("root-of-hub", scopes=everything_of_bob)
    made = await helper.post("/users/bob/tokens")
    assert made.status_code == 201
    await root.patch("/users/bob", json={"admin": True})
    somebody.headers["Authorization"] = f"token {made.json()['token']}"
    assert "admin:users" not in (await somebody.get("/user")).json()["scopes"]


async def test_whose_tokens_nobody_may_see_look_like_none(new_person: NewPerson) -> None:
    bob, anonymous = await new_person("bob"), await new_person(None)
    root = await new_person("root-of-hub", admin=True)
    await new_person("carol")
    for name in ("carol", "nobody"):
        assert (await bob.post(f"/users/{name}/tokens")).status_code == 403
        assert (await bob.get(f"/users/{name}/tokens")).status_code == 404
    assert (await root.post("/users/nobody/tokens")).status_code == 403
    assert (await root.get("/users/nobody/tokens")).status_code == 404
    assert (await anonymous.post("/users/bob/tokens")).status_code == 403
    carols = (await root.post("/users/carol/tokens")).json()["id"]
    for token_id in (carols, "nope", "a999999", "x1", "a1x", "a", "a99999999999999999999", "a-1"):
        assert (await root.get(f"/users/bob/tokens/{token_id}")).status_code == 404
        assert (await root.delete(f"/users/bob/tokens/{token_id}")).status_code == 404


async def test_the_token_of_a_server_goes_with_all_that_it_got(
    new_person: NewPerson, live: World
) -> None:
    bob = await new_person("bob")
    server = await live.ready("bob")
    user = await live.user("bob")
    async with live.hub.database.write() as session:
        for number in range(2):
            await issue_token(
                session,
                live.hub,
                user,
                actor="hub",
                note=f"t{number}",
                client_id=server.client_id,
                server_id=server.id,
            )
        expired = await issue_token(
            session, live.hub, user, actor="hub", expires_in=timedelta(seconds=-1)
        )
    listed = (await bob.get("/users/bob/tokens")).json()["api_tokens"]
    theirs = [one for one in listed if one["oauth_client"] == "Server at /user/bob/"]
    assert len(theirs) == 2
    assert f"a{expired.row.id}" not in {one["id"] for one in listed}
    assert (await bob.delete(f"/users/bob/tokens/{theirs[0]['id']}")).status_code == 204
    async with live.hub.database.read() as session:
        left = (await session.exec(select(Token.client_id))).all()
        changes = (await session.exec(select(RouteChange.payload))).all()
    assert server.client_id not in left
    revoked = [one for one in changes if (one.get("revocation") or {}).get("token_hash")]
    assert len(revoked) == 2, "every proxy hears of it"


async def test_no_token_is_good_for_longer_than_the_settings_say(
    new_person: NewPerson, live: World
) -> None:
    bob = await new_person("bob")
    live.change_settings(token_expires_in_max_seconds=3600)
    for body in ({}, {"expires_in": None}, {"expires_in": 3600}):
        made = (await bob.post("/users/bob/tokens", json=body)).json()
        async with live.hub.database.read() as session:
            row = await session.get_one(Token, int(made["id"].removeprefix("a")))
        assert row.expires_at == row.created + timedelta(hours=1)
    refused = await bob.post("/users/bob/tokens", json={"expires_in": 3601})
    assert (refused.status_code, "3600 seconds" in refused.json()["message"]) == (400, True)

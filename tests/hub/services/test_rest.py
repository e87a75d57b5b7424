"""Services over the REST API, and what a service may do."""

from typing import Any

import httpx
import pytest
from hub.users.conftest import NewPerson
from hub.world import World
from sqlmodel import select

from carrel_hub.auth.tokens import issue_token
from carrel_hub.db.models import Event, Service, Token

TOKEN = "t" * 40


async def acting_as(new_person: NewPerson, token: str) -> httpx.AsyncClient:
    client = await new_person(None)
    client.headers["Authorization"] = f"token {token}"
    return client


async def test_a_service_is_made_acts_and_is_deleted_with_its_token(
    new_person: NewPerson, live: World
) -> None:
    root = await new_person("root-of-hub", admin=True)
    body = {"api_token": TOKEN, "url": "http://127.0.0.1:9", "info": {"a": 1}}
    made = await root.post("/services/lister", json=body)
    assert made.status_code == 201
    assert made.json() == {
        "kind": "service", "name": "lister", "admin": False, "roles": [],
        "url": "http://127.0.0.1:9", "prefix": "/services/lister/", "command": [], "pid": 0,
        "info": {"a": 1}, "display": True,
    }  # fmt: skip
    assert (await root.post("/services/lister", json={})).status_code == 409
    assert list((await root.get("/services")).json()) == ["lister"]
    await live.push()
    assert live.proxy.routes["/services/lister/"].targets == ["http://127.0.0.1:9"]
    shown = (await root.get("/proxy")).json()["/services/lister/"]
    assert shown["data"] == {"service": "lister"}

    service = await acting_as(new_person, TOKEN)
    me = (await service.get("/user")).json()
    assert (me["kind"], me["name"], me["admin"]) == ("service", "lister", False)
    assert me["scopes"] == []
    assert "roles" not in me
    assert (await service.get("/users")).status_code == 403

    gone = await root.delete("/services/lister")
    assert (gone.status_code, gone.content) == (200, b"")
    assert (await root.get("/services/lister")).status_code == 404
    assert (await root.delete("/services/lister")).status_code == 404
    assert (await service.get("/user")).status_code == 403
    await live.push()
    assert "/services/lister/" not in live.proxy.routes
    async with live.hub.database.read() as session:
        statement = select(Event.kind).where(Event.subject == "service:lister")
        kinds = (await session.exec(statement)).all()
    assert list(kinds) == ["token.created", "service.created", "token.revoked", "service.deleted"]


async def test_an_administrators_service_may_what_one_may_and_is_named_in_the_history(
    new_person: NewPerson, live: World
) -> None:
    root = await new_person("root-of-hub", admin=True)
    await root.post("/services/boss", json={"api_token": TOKEN, "admin": True})
    service = await acting_as(new_person, TOKEN)
    assert (await service.post("/users/carol")).status_code == 201
    token = (await service.post("/users/carol/tokens")).json()
    assert token["note"] == "Requested via api by service boss"
    await root.post("/users/boss")
    assert (await service.delete("/users/boss")).status_code == 204, "a namesake is somebody else"
    async with live.hub.database.read() as session:
        statement = select(Event.actor).where(Event.kind == "user.created")
        assert "service:boss" in (await session.exec(statement)).all()


@pytest.mark.parametrize(
    "body",
    [
        None, [1], {"bogus": 1}, {"admin": "x"}, {"url": 5}, {"url": "ftp://x"},
        {"url": "https://x"}, {"url": "http://169.254.1.1"}, {"url": "http://0x7f000001"},
        {"url": "http://[::]:1"}, {"url": "http://x:0"}, {"url": "http://x/path"},
        {"url": "http://u:p@x"}, {"api_token": "short"},
        {"api_token": "x" * 65}, {"api_token": "a b" * 8}, {"command": ["sleep", "1"]},
        {"oauth_client_id": "jupyterhub-user-bob", "oauth_redirect_uri": "/x"},
        {"oauth_client_id": "service-x"}, {"oauth_redirect_uri": "javascript:x"},
        {"oauth_redirect_uri": "//elsewhere/x"}, {"oauth_client_allowed_scopes": ["nonsense"]},
    ],
)  # fmt: skip
async def test_what_cannot_be_is_400_and_makes_nothing(new_person: NewPerson, body: Any) -> None:
    root = await new_person("root-of-hub", admin=True)
    reply = await root.post("/services/x", json=body) if body else await root.post("/services/x")
    assert reply.status_code == 400
    assert set(reply.json()) == {"status", "message"}
    assert (await root.get("/services/x")).status_code == 404


async def test_nobody_makes_a_service_that_may_more_than_they(new_person: NewPerson) -> None:
    await new_person("bob")
    keeper = await new_person("keeper", scopes=["admin:services"], admin=True)
    for body in (
        {"admin": True},
        {"oauth_no_confirm": True},
        {"oauth_client_allowed_scopes": ["admin:users"], "url": "http://x"},
        {"oauth_client_allowed_scopes": ["servers!user"], "url": "http://x"},
    ):
        assert (await keeper.post("/services/x", json=body)).status_code == 400
    assert (await keeper.post("/services/x", json={"url": "http://x"})).status_code == 201
    only_y = await new_person("keeper2", scopes=["admin:services!service=y"], admin=True)
    assert (await only_y.post("/services/y", json={})).status_code == 201
    assert (await only_y.post("/services/z", json={})).status_code == 404
    assert list((await only_y.get("/services")).json()) == ["y"]
    bob = await new_person("bob")
    assert (await bob.get("/services")).status_code == 403
    assert (await bob.post("/services/z", json={})).status_code == 403


async def test_two_services_have_neither_token_nor_client_in_common(new_person: NewPerson) -> None:
    root = await new_person("root-of-hub", admin=True)
    client = {"oauth_client_id": "service-c", "oauth_redirect_uri": "/cb"}
    assert (await root.post("/services/one", json={"api_token": TOKEN})).status_code == 201
    assert (await root.post("/services/two", json=client)).status_code == 201
    assert (await root.post("/services/three", json={"api_token": TOKEN})).status_code == 409
    assert (await root.post("/services/three", json=client)).status_code == 409
    assert (await root.get("/services/three")).status_code == 404


async def test_deleting_a_service_ends_what_people_gave_it(
    new_person: NewPerson, live: World
) -> None:
    root = await new_person("root-of-hub", admin=True)
    await new_person("bob")
    await root.post("/services/web", json={"url": "http://127.0.0.1:9"})
    bob = await live.user("bob")
    async with live.hub.database.write() as session:
        new = await issue_token(session, live.hub, bob, actor="hub", client_id="service-web")
    given = await acting_as(new_person, new.secret)
    assert (await given.get("/user")).json()["name"] == "bob"
    await root.delete("/services/web")
    assert (await given.get("/user")).status_code == 403


async def test_whose_token_it_is_can_still_be_asked_the_old_way(new_person: NewPerson) -> None:
    root, nobody = await new_person("root-of-hub", admin=True), await new_person(None)
    await new_person("bob")
    token = (await root.post("/users/bob/tokens")).json()["token"]
    assert (await root.get(f"/authorizations/token/{token}")).json()["name"] == "bob"
    for unknown in ("e" * 32, "e" * 500):
        assert (await root.get(f"/authorizations/token/{unknown}")).status_code == 404
    assert (await nobody.get(f"/authorizations/token/{token}")).status_code == 403


async def test_secrets_are_stored_as_hashes_alone(new_person: NewPerson, live: World) -> None:
    root = await new_person("root-of-hub", admin=True)
    await root.post("/services/one", json={"api_token": TOKEN, "url": "http://x"})
    async with live.hub.database.read() as session:
        rows = [*(await session.exec(select(Service))).all()]
        tokens = [*(await session.exec(select(Token))).all()]
    assert TOKEN not in repr([row.model_dump() for row in (*rows, *tokens)])

"""The hub itself over the REST API."""

import pytest
from hub.users.conftest import NewPerson
from hub.world import World

from carrel_hub.users import operate


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    calls: list[None] = []
    monkeypatch.setattr(operate, "end_process", lambda: calls.append(None))
    return calls


async def test_the_hub_says_what_it_runs(new_person: NewPerson) -> None:
    root, bob = await new_person("root-of-hub", admin=True), await new_person("bob")
    reply = (await root.get("/info")).json()
    assert {"version", "python", "sys_executable"} <= reply.keys()
    for part in ("spawner", "authenticator"):
        assert reply[part].keys() == {"class", "version"}
    assert (await bob.get("/info")).status_code == 403


async def test_routes_are_shown_without_their_secrets(new_person: NewPerson, live: World) -> None:
    root, bob = await new_person("root-of-hub", admin=True), await new_person("bob")
    row = await live.ready("bob")
    reply = await root.get("/proxy")
    routes = reply.json()
    assert routes["/"]["data"] == {"hub": True}
    assert routes["/user/bob/"] == {
        "routespec": "/user/bob/",
        "target": row.address,
        "data": {"user": "bob", "server_name": ""},
    }
    assert row.secret
    assert row.secret not in reply.text
    paged = {"Accept": "application/jupyterhub-pagination+json"}
    page = (await root.get("/proxy?limit=1", headers=paged)).json()
    assert list(page["items"]) == ["/"]
    assert page["_pagination"]["next"]["offset"] == 1
    checked = await root.post("/proxy")
    assert (checked.status_code, checked.content) == (200, b"")
    for body in (b"", b"[]", b"{oops", b"{}"):
        assert (await root.patch("/proxy", content=body)).status_code == 400
    assert (await bob.get("/proxy")).status_code == 403
    assert (await bob.post("/proxy")).status_code == 403


async def test_the_hub_ends_when_an_administrator_says_so(
    new_person: NewPerson, live: World, ended: list[None]
) -> None:
    root, bob = await new_person("root-of-hub", admin=True), await new_person("bob")
    wrong: list[object] = [{"proxy": "maybe"}, {"servers": 7}, []]
    for body in wrong:
        assert (await root.post("/shutdown", json=body)).status_code == 400
    assert (await bob.post("/shutdown")).status_code == 403
    assert ended == []
    row = await live.ready("bob")
    reply = await root.post("/shutdown", json={"servers": True})
    assert reply.status_code == 202
    assert reply.json()["message"]
    assert ended == [None]
    assert (await live.row(row)).target == "stopped"

"""Groups over the REST API."""

import pytest
from hub.users.conftest import NewPerson

PAGED = {"Accept": "application/jupyterhub-pagination+json"}


async def test_a_group_is_made_filled_emptied_and_deleted(new_person: NewPerson) -> None:
    root = await new_person("root-of-hub", admin=True)
    for name in ("bob", "carol"):
        await new_person(name)
    made = await root.post("/groups/lab")
    assert made.status_code == 201
    assert made.json() == {
        "kind": "group", "name": "lab", "roles": [], "users": [], "properties": {},
    }  # fmt: skip
    assert (await root.post("/groups/lab")).status_code == 409
    joined = await root.post("/groups/lab/users", json={"users": ["CAROL", "bob", "bob"]})
    assert (joined.status_code, joined.json()["users"]) == (200, ["bob", "carol"])
    again = await root.post("/groups/lab/users", json={"users": ["bob"]})
    assert again.json()["users"] == ["bob", "carol"]
    assert (await root.get("/users/bob")).json()["groups"] == ["lab"]
    [listed] = (await root.get("/users?name_filter=bob")).json()
    assert listed["groups"] == ["lab"]
    left = await root.request("DELETE", "/groups/lab/users", json={"users": ["bob"]})
    assert (left.status_code, left.json()["users"]) == (200, ["carol"])
    left = await root.request("DELETE", "/groups/lab/users", json={"users": ["bob"]})
    assert left.status_code == 200
    gone = await root.delete("/groups/lab")
    assert (gone.status_code, gone.content) == (204, b"")
    assert (await root.get("/groups/lab")).status_code == 404
    assert (await root.delete("/groups/lab")).status_code == 404
    assert (await root.get("/users/carol")).json()["groups"] == []


async def test_several_are_made_at_once_or_none(new_person: NewPerson) -> None:
    root = await new_person("root-of-hub", admin=True)
    made = await root.post("/groups", json={"groups": ["b", "a"], "users": ["root-of-hub"]})
    assert made.status_code == 201
    assert [(g["name"], g["users"]) for g in made.json()] == [
        ("b", ["root-of-hub"]), ("a", ["root-of-hub"]),
    ]  # fmt: skip
    assert (await root.post("/groups", json={"groups": ["c", "a"]})).status_code == 409
    assert (await root.post("/groups/d", json={"users": ["nobody"]})).status_code == 400
    page = (await root.get("/groups?limit=1", headers=PAGED)).json()
    assert ([g["name"] for g in page["items"]], page["_pagination"]["total"]) == (["b"], 2)
    assert page["_pagination"]["next"]["url"] == "http://hub/hub/api/groups?offset=1&limit=1"
    assert [g["name"] for g in (await root.get("/groups?offset=1")).json()] == ["a"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "", None), ("POST", "", {}), ("POST", "", {"groups": []}), ("POST", "", []),
        ("POST", "", {"groups": ["a/b"]}), ("POST", "", {"groups": [""]}),
        ("POST", "/new", {"users": "x"}), ("POST", "/new", {"unknown": []}),
        ("POST", "/new", {"name": 1}), ("POST", "/new", []),
        ("POST", "/lab/users", {}), ("POST", "/lab/users", {"users": "x"}),
        ("POST", "/lab/users", {"users": ["nobody"]}), ("DELETE", "/lab/users", {}),
        ("DELETE", "/lab/users", {"users": [1]}), ("DELETE", "/lab/users", {"users": ["nobody"]}),
        ("PUT", "/lab/properties", []), ("PUT", "/lab/properties", None),
    ],
)  # fmt: skip
async def test_bodies_that_make_no_sense(
    new_person: NewPerson, method: str, path: str, body: object
) -> None:
    root = await new_person("root-of-hub", admin=True)
    await root.post("/groups/lab")
    reply = await root.request(method, f"/groups{path}", json=body)
    assert reply.status_code == 400
    assert reply.json()["message"]


async def test_properties_are_replaced_as_a_whole(new_person: NewPerson) -> None:
    root = await new_person("root-of-hub", admin=True)
    await root.post("/groups/lab")
    first = await root.put("/groups/lab/properties", json={"cpu": 8, "deep": {"a": [1]}})
    assert first.json()["properties"] == {"cpu": 8, "deep": {"a": [1]}}
    await root.put("/groups/lab/properties", json={"ram": 4})
    assert (await root.get("/groups/lab")).json()["properties"] == {"ram": 4}
    assert (await root.put("/groups/none/properties", json={})).status_code == 404
    assert (await root.post("/groups/none/users", json={"users": []})).status_code == 404


async def test_a_right_to_one_group_is_none_to_others(new_person: NewPerson) -> None:
    """ADV-10."""
    root = await new_person("root-of-hub", admin=True)
    await root.post("/groups", json={"groups": ["lab", "other"]})
    held = ["groups!group=lab", "admin:groups!group=mine"]
    limited = await new_person("root-of-hub", scopes=held)
    page = (await limited.get("/groups", headers=PAGED)).json()
    assert [g["name"] for g in page["items"]] == ["lab"]
    assert page["_pagination"]["total"] == 1, "not even how many others there are"
    for method, path in (
        ("GET", "/groups/other"), ("GET", "/groups/nothing"), ("DELETE", "/groups/lab"),
        ("POST", "/groups/other"), ("POST", "/groups/other/users"),
        ("PUT", "/groups/other/properties"),
    ):  # fmt: skip
        assert (await limited.request(method, path, json={"users": []})).status_code == 404
    assert (await limited.post("/groups", json={"groups": ["mine"]})).status_code == 403
    assert (await limited.post("/groups/mine")).status_code == 201
    named = await new_person("root-of-hub", scopes=["read:groups:name"])
    assert (await named.get("/groups/lab")).json() == {"kind": "group", "name": "lab"}
    bob = await new_person("bob")
    for method, path in (
        ("GET", "/groups"), ("GET", "/groups/lab"), ("POST", "/groups/x"), ("POST", "/groups"),
    ):  # fmt: skip
        assert (await bob.request(method, path)).status_code == 403


async def test_joining_a_group_counts_at_the_next_request(new_person: NewPerson) -> None:
    root = await new_person("root-of-hub", admin=True)
    await new_person("bob")
    await root.post("/groups/lab")
    held = ["read:servers!group=lab", "read:users!group=lab", "groups"]
    helper = await new_person("root-of-hub", scopes=held)
    assert (await helper.get("/users/bob")).status_code == 404
    await root.post("/groups/lab/users", json={"users": ["bob"]})
    assert (await helper.get("/users/bob")).json()["servers"] == {}
    await root.request("DELETE", "/groups/lab/users", json={"users": ["bob"]})
    assert (await helper.get("/users/bob")).status_code == 404
    caught = await helper.post("/groups/lab/users", json={"users": ["root-of-hub"]})
    assert caught.status_code == 403, "it would give rights over an administrator"

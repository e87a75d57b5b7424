"""What the settings say is there from the start: people, groups, roles, services."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from hub.world import World, open_world
from pydantic import ValidationError
from sqlmodel import select

from carrel_hub.app import create_public_app
from carrel_hub.auth.tokens import issue_token
from carrel_hub.db.models import Event, Group, Service
from carrel_hub.errors import ConflictError
from carrel_hub.groups.store import create_groups
from carrel_hub.services.store import find_service
from carrel_hub.startup import StartupError, apply_settings

Call = Callable[..., Awaitable[httpx.Response]]
TOKEN = "s" * 40

SETTINGS: dict[str, Any] = {
    "auth": {"admin_users": ["Root-Of-Hub"], "allowed_users": ["alice"], "blocked_users": ["eve"]},
    "groups": {"lab": {"users": ["Bob"], "properties": {"cpu": 2}}, "other": {}},
    "services": [{"name": "culler", "api_token": TOKEN, "info": {"a": 1}}],
    "roles": [
        {"name": "lister", "scopes": ["list:users!group=lab"], "groups": ["staff"]},
        {"name": "culling", "scopes": ["list:users", "read:servers"], "services": ["culler"]},
        {"name": "helper", "scopes": ["read:hub"], "users": ["carol"]},
        {"name": "user", "scopes": ["self", "access:services!service=culler"]},
    ],
}


@pytest.fixture
async def made() -> AsyncIterator[World]:
    async with open_world(**SETTINGS) as world:
        await apply_settings(world.hub)
        yield world


async def call(world: World, token: str, method: str, path: str, **more: Any) -> httpx.Response:
    transport = httpx.ASGITransport(app=create_public_app(world.hub))
    headers = {"Authorization": f"token {token}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://hub/hub/api") as client:
        return await client.request(method, path, headers=headers, **more)


async def token_of(world: World, name: str) -> str:
    user = await world.user(name)
    async with world.hub.database.write() as session:
        return (await issue_token(session, world.hub, user, actor="test")).secret


async def test_people_groups_and_services_are_there(made: World) -> None:
    root = await token_of(made, "root-of-hub")
    users = (await call(made, root, "GET", "/users")).json()
    assert {u["name"]: u["roles"] for u in users} == {
        "alice": ["user"], "bob": ["user"], "carol": ["helper", "user"],
        "root-of-hub": ["admin", "user"],
    }  # fmt: skip
    groups = {g["name"]: g for g in (await call(made, root, "GET", "/groups")).json()}
    assert (groups["lab"]["users"], groups["lab"]["properties"]) == (["bob"], {"cpu": 2})
    assert groups["staff"]["roles"] == ["lister"]
    [culler] = (await call(made, root, "GET", "/services")).json().values()
    assert (culler["roles"], culler["info"]) == (["culling"], {"a": 1})
    assert (await call(made, root, "DELETE", "/services/culler")).status_code == 405


async def test_starting_again_changes_nothing(made: World) -> None:
    async def events() -> int:
        async with made.hub.database.read() as session:
            return len((await session.exec(select(Event.id))).all())

    before = await events()
    await apply_settings(made.hub)
    assert await events() == before


async def test_another_hub_that_is_quicker_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two replicas may start at once, on one database."""
    calls: list[Any] = []

    async def late(*args: Any, **more: Any) -> Any:
        calls.append(args)
        if len(calls) == 1:
            raise ConflictError("One of these groups was made in this moment; try again")
        return await create_groups(*args, **more)

    monkeypatch.setattr("carrel_hub.startup.create_groups", late)
    async with open_world(**SETTINGS) as world:
        await apply_settings(world.hub)
        async with world.hub.database.read() as session:
            names = (await session.exec(select(Group.name))).all()
        assert set(names) == {"lab", "other", "staff"}


async def test_roles_count_by_name_by_group_and_for_services(made: World) -> None:
    me = (await call(made, await token_of(made, "carol"), "GET", "/user")).json()
    assert "read:hub" in me["scopes"]
    assert "access:services!service=culler" in me["scopes"]
    assert "read:servers" in (await call(made, TOKEN, "GET", "/user")).json()["scopes"]
    alice, root = await token_of(made, "alice"), await token_of(made, "root-of-hub")
    assert (await call(made, alice, "GET", "/users")).status_code == 403
    await call(made, root, "POST", "/groups/staff/users", json={"users": ["alice"]})
    listed = (await call(made, alice, "GET", "/users")).json()
    assert [user["name"] for user in listed] == ["bob"]
    await call(made, root, "DELETE", "/groups/staff/users", json={"users": ["alice"]})
    assert (await call(made, alice, "GET", "/users")).status_code == 403


async def test_nobody_gives_by_a_name_or_a_group_what_they_have_not(made: World) -> None:
    """Roles in the settings go by names: making a name, or filling a group, hands them out."""
    root, keeper = await token_of(made, "root-of-hub"), await token_of(made, "alice")
    roles = [
        *SETTINGS["roles"],
        {"name": "keeper", "scopes": ["admin:users", "admin:groups"], "users": ["alice"]},
    ]
    made.change_settings(roles=type(made.hub.settings)(
        **{**made.hub.settings.model_dump(exclude={"services", "roles", "agents", "proxies"}),
           "console_key": "c" * 32, "services": SETTINGS["services"], "roles": roles}
    ).roles)  # fmt: skip
    assert (await call(made, root, "DELETE", "/users/carol")).status_code == 204
    assert (await call(made, keeper, "POST", "/users/carol")).status_code == 403
    many = {"usernames": ["dave", "carol"]}
    assert (await call(made, keeper, "POST", "/users", json=many)).status_code == 403
    rename = {"name": "carol"}
    assert (await call(made, keeper, "PATCH", "/users/bob", json=rename)).status_code == 403
    assert (await call(made, keeper, "POST", "/users/dave")).status_code == 201
    join = {"users": ["dave"]}
    assert (await call(made, keeper, "POST", "/groups/staff/users", json=join)).status_code == 200
    assert (await call(made, root, "POST", "/users/carol")).status_code == 201


async def test_who_is_blocked_loses_everything_and_is_nobody(made: World) -> None:
    async with made.hub.database.write() as session:
        from carrel_hub.users.accounts import get_or_create_user

        await get_or_create_user(session, "eve", at=made.clock.now(), account="eve", admin=True)
    made.change_settings(auth=made.hub.settings.auth.model_copy(update={"blocked_users": []}))
    token = await token_of(made, "eve")
    root = await token_of(made, "root-of-hub")
    await call(made, root, "POST", "/groups/lab/users", json={"users": ["eve"]})
    await made.report()
    row = await made.settle(await made.start("eve"))
    blocked = made.hub.settings.auth.model_copy(update={"blocked_users": [" EVE "]})
    made.change_settings(auth=blocked)
    assert (await call(made, token, "GET", "/user")).status_code == 403, "at once"
    await apply_settings(made.hub)
    assert (await made.row(row)).target == "stopped"
    shown = (await call(made, root, "GET", "/users/eve")).json()
    assert (shown["admin"], shown["groups"]) == (False, [])
    made.change_settings(auth=made.hub.settings.auth.model_copy(update={"blocked_users": []}))
    assert (await call(made, token, "GET", "/user")).status_code == 403, "its tokens are gone"


async def test_services_follow_the_settings(made: World) -> None:
    changed = [entry.model_copy(update={"url": "http://127.0.0.1:7"})
               for entry in made.hub.settings.services]  # fmt: skip
    made.change_settings(services=changed)
    await apply_settings(made.hub)
    await made.push()
    assert made.proxy.routes["/services/culler/"].targets == ["http://127.0.0.1:7"]
    made.change_settings(services=[], roles=[])
    await apply_settings(made.hub)
    await made.push()
    assert "/services/culler/" not in made.proxy.routes
    assert (await call(made, TOKEN, "GET", "/user")).status_code == 403


async def test_a_service_made_over_the_api_is_not_taken_over(made: World) -> None:
    async with made.hub.database.write() as session:
        row = await find_service(session, "culler")
        assert isinstance(row, Service)
        row.from_settings = False
        session.add(row)
    with pytest.raises(StartupError, match="'culler' was made over the API"):
        await apply_settings(made.hub)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"roles": [{"name": "admin"}]}, "cannot be changed"),
        ({"roles": [{"name": "x"}]}, "pattern"),
        ({"roles": [{"name": "good", "scopes": ["no:such"]}]}, "no scope"),
        ({"roles": [{"name": "good", "services": ["none"]}]}, "no service 'none'"),
        ({"roles": [{"name": "good"}, {"name": "good"}]}, "twice"),
        ({"services": [{"name": "a/b"}]}, "no slash"),
        ({"services": [{"name": "a", "oauth_client_id": "jupyterhub-user-x"}]}, "pattern"),
        ({"services": [{"name": "a", "api_token": "short"}]}, "8 to 64"),
        ({"profiles": {"x": {"contract": "jupyterhub"}}}, "needs a command"),
        ({"profiles": {"x": {"contract": "jupyterhub", "command": ["x"]}}}, "needs api_url"),
        ({"groups": {"g": {"users": ["a/b"]}}}, "no slash"),
    ],
)
async def test_settings_that_cannot_be_meant_are_refused(
    changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValidationError, match=complaint):
        async with open_world(**changes):
            pass

"""Whatever changes something says so in the audit trail: a walk over every route that may.

A new route that changes something gets a recipe here: a call that succeeds. What changes nothing
that anybody would look for in a history is named in `NOTHING_TO_TELL`, with the reason.
"""

import base64
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest
from hub.openapi.judging import problem
from hub.route_walk import build_apps, routes
from hub.web.site import Browser
from hub.world import World, open_world
from sqlmodel import col, select
from starlette.types import ASGIApp

from carrel_hub.auth.sessions import begin_session
from carrel_hub.auth.signing import signer_for
from carrel_hub.auth.tokens import issue_token
from carrel_hub.db.models import AgentHost, Event, HostAccount, User
from carrel_hub.users import operate
from carrel_hub.users.accounts import get_or_create_user
from carrel_shared.service_auth import service_headers

NOTHING_TO_TELL = {
    "PUT /hub/api/users/{name}/server": "the default server is always there: 409",
    "PUT /hub/api/users/{name}/servers/": "the same",
    "PATCH /hub/api/proxy": "refused always",
    "POST /hub/api/users/{name}/admin-access": "refused always",
    "POST /hub/api/users/{name}/activity": "when something was last used is a time in its row",
    "POST /internal/v1/proxies/{name}/activity": "the same",
    "POST /internal/v1/proxies/{name}/resync": "what a proxy has, not what anybody did",
    "POST /internal/v1/access/verdict": "a question",
    "POST /hub/security/csp-report": "goes to the log",
    **{
        f"{method} {path}": "answers for servers that are not there, and changes nothing"
        for method in ("POST", "PUT", "PATCH", "DELETE")
        for path in ("/hub/user/{path:path}", "/{path:path}")
    },
}
VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode()[:-1]


def secret_of(service: str) -> str:
    """Return the API token of a service that a recipe made."""
    return f"secret-of-{service}"


@dataclass
class Stage:
    """A hub with an administrator at a browser and by token, and its neighbours."""

    world: World
    api: httpx.AsyncClient
    internal: httpx.AsyncClient
    browser: Browser
    made: int = 0

    async def call(self, method: str, path: str, json: object = None) -> httpx.Response:
        """Call the API as the administrator."""
        return await self.api.request(method, f"/hub/api{path}", json=json)

    async def new(self, kind: str) -> str:
        """Return the name of a new user, group or service."""
        self.made += 1
        name = f"{kind}{self.made}"
        body = (
            {"url": "http://127.0.0.1:9", "api_token": secret_of(name)}
            if kind == "services"
            else None
        )
        reply = await self.call("POST", f"/{kind}/{name}", body)
        assert reply.status_code == 201, reply.text
        return name

    async def started(self, name: str = "") -> str:
        """Return a new user's name, with a server that is starting."""
        user = await self.new("users")
        reply = await self.call("POST", f"/users/{user}/servers/{name}")
        assert reply.status_code == 202, reply.text
        return user

    async def form(self, path: str, **fields: str) -> httpx.Response:
        """Send a form, as a page would."""
        if "_xsrf" not in self.browser.client.cookies:
            await self.browser.get("/hub/home")
        fields["_xsrf"] = self.browser.client.cookies["_xsrf"]
        return await self.browser.post(path, fields)

    async def code(self, client_id: str, redirect_uri: str) -> httpx.Response:
        """Agree to let a client know who one is."""
        query = urlencode(
            {
                "client_id": client_id,
                "redirect_uri": redirect_uri,
                "response_type": "code",
                "state": "s",
                "code_challenge": CHALLENGE,
                "code_challenge_method": "S256",
            }
        )
        return await self.form(f"/hub/api/oauth2/authorize?{query}")

    async def console(self, path: str, body: object) -> httpx.Response:
        headers = service_headers("c" * 32)
        return await self.internal.post(f"/internal/v1/{path}", json=body, headers=headers)


Recipe = Callable[[Stage], Awaitable[httpx.Response]]
RECIPES: dict[str, Recipe] = {}


def changes(*names: str) -> Callable[[Recipe], Recipe]:
    """Say which routes a recipe is for."""

    def remember(recipe: Recipe) -> Recipe:
        RECIPES.update(dict.fromkeys(names, recipe))
        return recipe

    return remember


def api(name: str, kind: str, suffix: str = "", body: object = None) -> None:
    """A route below the API that acts on something new."""
    method, _, _ = name.partition(" ")

    async def recipe(stage: Stage) -> httpx.Response:
        return await stage.call(method, f"/{kind}/{await stage.new(kind)}{suffix}", body)

    RECIPES[name] = recipe


_SERVER = "/hub/api/users/{name}/server"
for where, suffix in (("", "/server"), ("s/", "/servers/"), ("s/{server_name}", "/servers/lab")):
    for method, body in (("POST", None), ("PATCH", {"user_options": {"a": 1}})):
        if method == "POST" or suffix != "/servers/lab":
            api(f"{method} {_SERVER}{where}", "users", suffix, body)
api(f"PUT {_SERVER}s/{{server_name}}", "users", "/servers/lab")
api("PATCH /hub/api/users/{name}", "users", "", {"admin": True})
api("DELETE /hub/api/users/{name}", "users")
api("POST /hub/api/users/{name}/tokens", "users", "/tokens")
api("DELETE /hub/api/groups/{name}", "groups")
api("PUT /hub/api/groups/{name}/properties", "groups", "/properties", {"a": 1})
api("POST /hub/api/groups/{name}/users", "groups", "/users", {"users": ["boss"]})
api("DELETE /hub/api/services/{name}", "services")


@changes("POST /hub/api/users/{name}")
async def _make_user(stage: Stage) -> httpx.Response:
    return await stage.call("POST", "/users/somebody")


@changes("POST /hub/api/users")
async def _make_users(stage: Stage) -> httpx.Response:
    return await stage.call("POST", "/users", {"usernames": ["one", "other"]})


@changes("POST /hub/api/groups")
async def _make_groups(stage: Stage) -> httpx.Response:
    return await stage.call("POST", "/groups", {"groups": ["these", "those"]})


@changes("POST /hub/api/groups/{name}")
async def _make_group(stage: Stage) -> httpx.Response:
    return await stage.call("POST", "/groups/another")


@changes("DELETE /hub/api/groups/{name}/users")
async def _leave(stage: Stage) -> httpx.Response:
    group = await stage.new("groups")
    await stage.call("POST", f"/groups/{group}/users", {"users": ["boss"]})
    return await stage.call("DELETE", f"/groups/{group}/users", {"users": ["boss"]})


@changes("POST /hub/api/services/{name}")
async def _make_service(stage: Stage) -> httpx.Response:
    return await stage.call("POST", "/services/another", {})


@changes(f"PATCH {_SERVER}s/{{server_name}}")
async def _rename_server(stage: Stage) -> httpx.Response:
    user = await stage.new("users")
    await stage.call("PUT", f"/users/{user}/servers/lab")
    return await stage.call("PATCH", f"/users/{user}/servers/lab", {"name": "desk"})


@changes(f"DELETE {_SERVER}", f"DELETE {_SERVER}s/")
async def _stop_server(stage: Stage) -> httpx.Response:
    return await stage.call("DELETE", f"/users/{await stage.started()}/server")


@changes(f"DELETE {_SERVER}s/{{server_name}}")
async def _remove_server(stage: Stage) -> httpx.Response:
    user = await stage.started("lab")
    return await stage.call("DELETE", f"/users/{user}/servers/lab", {"remove": True})


@changes(f"PUT {_SERVER}/limits", f"PUT {_SERVER}s/{{server_name}}/limits")
async def _change_limits(stage: Stage) -> httpx.Response:
    name = await stage.new("users")
    await stage.world.ready(name)
    return await stage.call("PUT", f"/users/{name}/server/limits", {"processes": 50})


@changes("DELETE /hub/api/users/{name}/tokens/{token_id}")
async def _revoke_token(stage: Stage) -> httpx.Response:
    user = await stage.new("users")
    made = (await stage.call("POST", f"/users/{user}/tokens")).json()
    return await stage.call("DELETE", f"/users/{user}/tokens/{made['id']}")


_PLACES = (("/{owner}/", ""), ("/{owner}/{name}", "lab"))


def shares(name: str, path: str, server: str, *, by_code: bool = False) -> None:
    """A route that acts on a share of a new server, or on a code for one."""
    method, _, _ = name.partition(" ")

    async def recipe(stage: Stage) -> httpx.Response:
        owner = await stage.started(server)
        user, group = await stage.new("users"), await stage.new("groups")
        where = f"{owner}/{server}"
        if by_code:
            await stage.call("POST", f"/share-codes/{where}")
        elif method != "POST":
            for kind, recipient in (("user", user), ("group", group)):
                reply = await stage.call("POST", f"/shares/{where}", {kind: recipient})
                assert reply.status_code == 200, reply.text
        body = {"user": user} if path == "shares/" and method != "DELETE" else None
        place = path.format(user=user, group=group)
        return await stage.call(method, f"/{place}{where}", body)

    RECIPES[name] = recipe


for place, server in _PLACES:
    for method in ("POST", "PATCH", "DELETE"):
        shares(f"{method} /hub/api/shares{place}", "shares/", server)
    for method in ("POST", "DELETE"):
        shares(f"{method} /hub/api/share-codes{place}", "share-codes/", server, by_code=True)
    for kind in ("user", "group"):
        route = f"DELETE /hub/api/{kind}s/{{{kind}_name}}/shared{place}"
        shares(route, f"{kind}s/{{{kind}}}/shared/", server)


@changes("POST /hub/accept-share")
async def _accept_share(stage: Stage) -> httpx.Response:
    owner = await stage.started()
    made = (await stage.call("POST", f"/share-codes/{owner}/")).json()
    return await stage.form("/hub/accept-share", code=made["code"])


@changes("POST /hub/leave-share/{owner}")
async def _leave_share(stage: Stage) -> httpx.Response:
    owner = await stage.started()
    await stage.call("POST", f"/shares/{owner}/", {"user": "boss"})
    return await stage.form(f"/hub/leave-share/{owner}")


@changes("POST /hub/leave-share/{owner}/{name}")
async def _leave_named_share(stage: Stage) -> httpx.Response:
    owner = await stage.started("lab")
    await stage.call("POST", f"/shares/{owner}/lab", {"user": "boss"})
    return await stage.form(f"/hub/leave-share/{owner}/lab")


@changes("POST /hub/api/proxy")
async def _check_routes(stage: Stage) -> httpx.Response:
    return await stage.call("POST", "/proxy")


@changes("POST /hub/api/shutdown")
async def _shut_down(stage: Stage) -> httpx.Response:
    return await stage.call("POST", "/shutdown")


@changes("POST /hub/api/oauth2/authorize")
async def _agree(stage: Stage) -> httpx.Response:
    name = await stage.new("services")
    return await stage.code(f"service-{name}", f"/services/{name}/oauth_callback")


@changes("POST /hub/api/oauth2/token")
async def _exchange(stage: Stage) -> httpx.Response:
    answer = await _agree(stage)
    name = f"services{stage.made}"
    form = {
        "client_id": f"service-{name}",
        "client_secret": secret_of(name),
        "redirect_uri": f"/services/{name}/oauth_callback",
        "grant_type": "authorization_code",
        "code": _code(answer),
        "code_verifier": VERIFIER,
    }
    return await stage.browser.client.post("/hub/api/oauth2/token", data=form)


@changes("POST /internal/v1/access/redeem")
async def _redeem(stage: Stage) -> httpx.Response:
    await stage.call("POST", "/users/boss/server")
    model = (await stage.call("GET", "/users/boss/server")).json()
    client_id, callback = "jupyterhub-user-boss", "/user/boss/oauth_callback"
    body = {
        "server_id": model["state"]["server_id"],
        "client_id": client_id,
        "redirect_uri": callback,
        "code": _code(await stage.code(client_id, callback)),
        "code_verifier": VERIFIER,
        "session_id": stage.browser.client.cookies["jupyterhub-session-id"],
    }
    headers = service_headers("P" * 32)
    return await stage.internal.post("/internal/v1/access/redeem", json=body, headers=headers)


@changes("POST /internal/v1/agents/{name}/report")
async def _report(stage: Stage) -> httpx.Response:
    world = stage.world
    row = await world.drive(await world.start("reported"))
    world.agent.end(row.id, cause="exited", code=1)
    headers = {**service_headers("K" * 32), "Content-Type": "application/json"}
    return await stage.internal.post(
        "/internal/v1/agents/local/report",
        content=world.agent.report().model_dump_json(),
        headers=headers,
    )


async def _host(stage: Stage) -> str:
    """Return the name of a new host, where somebody was once."""
    world, name = stage.world, f"host{stage.made}"
    stage.made += 1
    async with world.hub.database.write() as session:
        session.add(AgentHost(name=name, joined_at=world.clock.now()))
        boss = (await session.exec(select(User).where(User.name == "boss"))).one()
        assert boss.id is not None
        session.add(
            HostAccount(
                user_id=boss.id,
                host=name,
                account="boss",
                uid=1,
                gid=1,
                home="/",
                used_at=world.clock.now(),
            )
        )
    return name


@changes("POST /hub/api/hosts/{name}/token")
async def _host_token(stage: Stage) -> httpx.Response:
    return await stage.call("POST", f"/hosts/{await _host(stage)}/token")


@changes("POST /hub/api/hosts/{name}/drain")
async def _drain_host(stage: Stage) -> httpx.Response:
    name = await _host(stage)
    await stage.call("DELETE", f"/hosts/{name}/drain")
    return await stage.call("POST", f"/hosts/{name}/drain")


@changes("DELETE /hub/api/hosts/{name}/drain")
async def _take_host_in(stage: Stage) -> httpx.Response:
    name = await _host(stage)
    await stage.call("POST", f"/hosts/{name}/drain")
    return await stage.call("DELETE", f"/hosts/{name}/drain")


@changes("POST /hub/api/hosts/{name}/accept")
async def _accept_host(stage: Stage) -> httpx.Response:
    name = await _host(stage)
    async with stage.world.hub.database.write() as session:
        (await session.get_one(AgentHost, name)).other_machine = "another"
    return await stage.call("POST", f"/hosts/{name}/accept")


@changes("POST /hub/api/hosts/{name}/evacuate")
async def _evacuate_host(stage: Stage) -> httpx.Response:
    return await stage.call("POST", f"/hosts/{await _host(stage)}/evacuate")


@changes("DELETE /hub/api/hosts/{name}")
async def _remove_host(stage: Stage) -> httpx.Response:
    return await stage.call("DELETE", f"/hosts/{await _host(stage)}")


@changes("DELETE /hub/api/hosts/{name}/accounts/{user}")
async def _forget_account(stage: Stage) -> httpx.Response:
    return await stage.call("DELETE", f"/hosts/{await _host(stage)}/accounts/boss")


@changes("POST /internal/v1/console/link")
async def _link(stage: Stage) -> httpx.Response:
    return await stage.console("console/link", {"user": "boss"})


@changes("POST /internal/v1/console/token")
async def _console_token(stage: Stage) -> httpx.Response:
    return await stage.console("console/token", {"user": "boss"})


@changes("POST /internal/v1/console/join-token")
async def _console_join_token(stage: Stage) -> httpx.Response:
    return await stage.console("console/join-token", {"host": "rack-9"})


@changes("POST /internal/v1/console/stop-all")
async def _stop_all(stage: Stage) -> httpx.Response:
    await stage.started()
    return await stage.console("console/stop-all", {"reason": "enough"})


@changes("POST /hub/login")
async def _sign_in(stage: Stage) -> httpx.Response:
    other = Browser(httpx.AsyncClient(transport=stage.api._transport, base_url="http://hub.test"))
    page = await other.get("/hub/login")
    return await other.press(page, "sign-in", username="visitor", password="x")


@changes("POST /hub/sign-in/{secret}")
async def _follow_link(stage: Stage) -> httpx.Response:
    path = (await _link(stage)).json()["path"]
    return await stage.browser.press(await stage.browser.get(path), "sign-in")


@changes("POST /hub/spawn")
async def _press_start(stage: Stage) -> httpx.Response:
    await stage.call("DELETE", "/users/boss/server")
    return await stage.form("/hub/spawn")


@changes("POST /hub/spawn-named")
async def _press_start_named(stage: Stage) -> httpx.Response:
    return await stage.form("/hub/spawn-named", name="fresh")


@changes("POST /hub/spawn/{owner}")
async def _press_start_of(stage: Stage) -> httpx.Response:
    return await stage.form(f"/hub/spawn/{await stage.new('users')}")


@changes("POST /hub/spawn/{owner}/{name}")
async def _press_start_named_of(stage: Stage) -> httpx.Response:
    return await stage.form(f"/hub/spawn/{await stage.new('users')}/lab")


@changes("POST /hub/stop/{owner}")
async def _press_stop(stage: Stage) -> httpx.Response:
    return await stage.form(f"/hub/stop/{await stage.started()}")


@changes("POST /hub/stop/{owner}/{name}")
async def _press_stop_named(stage: Stage) -> httpx.Response:
    return await stage.form(f"/hub/stop/{await stage.started('lab')}/lab")


@changes("POST /hub/token")
async def _press_make(stage: Stage) -> httpx.Response:
    return await stage.form("/hub/token", note="mine")


@changes("POST /hub/token/revoke/{token_id}")
async def _press_revoke(stage: Stage) -> httpx.Response:
    made = (await stage.call("POST", "/users/boss/tokens")).json()
    return await stage.form(f"/hub/token/revoke/{made['id']}")


@changes("POST /hub/logout-elsewhere")
async def _press_logout_elsewhere(stage: Stage) -> httpx.Response:
    hub = stage.world.hub
    async with hub.database.write() as session:
        boss = (await session.exec(select(User).where(User.name == "boss"))).one()
        await begin_session(session, hub, signer_for(hub.settings.state_dir), boss, how="link")
    return await stage.form("/hub/logout-elsewhere")


@changes("POST /hub/share/{owner}")
async def _press_share(stage: Stage) -> httpx.Response:
    user = await stage.new("users")
    fields = {"do": "link", "lifetime": "3600", "scope": "access:servers"}
    return await stage.form(f"/hub/share/{user}", **fields)


@changes("POST /hub/share/{owner}/{name}")
async def _press_share_named(stage: Stage) -> httpx.Response:
    user, other = await stage.started("lab"), await stage.new("users")
    fields = {"do": "grant", "kind": "user", "name": other, "scope": "access:servers"}
    return await stage.form(f"/hub/share/{user}/lab", **fields)


@changes("POST /hub/hosts")
async def _press_make_join_token(stage: Stage) -> httpx.Response:
    return await stage.form("/hub/hosts", name="rack-9")


@changes("POST /hub/hosts/{name}")
async def _press_drain(stage: Stage) -> httpx.Response:
    await stage.call("POST", "/hosts/local/drain")
    return await stage.form("/hub/hosts/local", do="take-in")


def _code(answer: httpx.Response) -> str:
    return parse_qs(urlsplit(answer.headers["location"]).query)["code"][0]


@asynccontextmanager
async def open_stage(world: World, public: ASGIApp, internal: ASGIApp) -> AsyncIterator[Stage]:
    await world.report()
    async with world.hub.database.write() as session:
        boss = await get_or_create_user(
            session, "boss", at=world.clock.now(), account="boss", admin=True
        )
        token = (await issue_token(session, world.hub, boss, actor="hub")).secret
    transport = httpx.ASGITransport(app=public)
    inside = httpx.ASGITransport(app=internal)
    async with (
        httpx.AsyncClient(
            transport=transport, base_url="http://hub", headers={"Authorization": f"token {token}"}
        ) as api_client,
        httpx.AsyncClient(transport=transport, base_url="http://hub.test") as window,
        httpx.AsyncClient(transport=inside, base_url="http://inside") as internal_client,
    ):
        stage = Stage(world, api_client, internal_client, Browser(window))
        await _follow_link(stage)
        yield stage


async def last_event(world: World) -> Event:
    async with world.hub.database.read() as session:
        statement = select(Event).order_by(col(Event.id).desc()).limit(1)
        return (await session.exec(statement)).one()


async def test_every_route_that_changes_something_leaves_an_event(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(operate, "end_process", lambda: None)
    auth = {"authenticator": "dummy", "allow_all": True}
    async with open_world(
        auth=auth,
        allow_named_servers=True,
        slow_spawn_seconds=0,
        slow_stop_seconds=0,
        fleet_listen="0.0.0.0:1",
    ) as world:
        apps, public, internal = build_apps(world.hub, monkeypatch)
        found = {
            f"{method} {path}"
            for app in apps
            for method, path in routes(app)
            if method not in ("GET", "HEAD")
        }
        assert len(found) > 50, "the walk does not find the routes"
        assert found - RECIPES.keys() - NOTHING_TO_TELL.keys() == set(), (
            "these have no recipe here, so nobody knows whether the audit trail tells of them"
        )
        assert (RECIPES.keys() | NOTHING_TO_TELL.keys()) - found == set(), "these are gone"
        async with open_stage(world, public, internal) as stage:
            document = (await stage.call("GET", "/openapi.json")).json()
            for name in sorted(found & RECIPES.keys()):
                reply = await RECIPES[name](stage)
                assert reply.status_code < 400, f"{name}: {reply.status_code} {reply.text}"
                event = await last_event(world)
                assert event.request_id == reply.headers["x-request-id"], (
                    f"{name} leaves no event: {event.kind}"
                )
                assert event.actor, name
                method, _, path = name.partition(" ")
                if path in document["paths"]:
                    assert problem(document, method, path, reply) is None, name

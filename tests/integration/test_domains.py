"""One domain for each user, hub and proxy together: where a browser is led, and what it carries."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from integration.joined import Joined, join
from proxy.wire import Message, eventually, ok

from carrel_hub.services.bodies import WantedService
from carrel_hub.services.store import delete_service, find_service, put_service

HUB = "https://hub.test"
ALICE = "https://alice.hub.test"
LAB = f"{ALICE}/user/alice/lab?x=1"


@pytest.fixture
async def joined(short_dir: Path) -> AsyncIterator[Joined]:
    async with join(short_dir, origin=HUB, public_url=f"{HUB}/", user_domains=True) as made:
        made.upstream.respond = lambda request: ok(request.target.encode())
        yield made


def visitor(request: Message) -> str:
    return str(json.loads(request.one("x-carrel-user") or "{}").get("name"))


async def test_a_browser_is_led_to_the_users_host_and_back(joined: Joined) -> None:
    await joined.server("alice")
    alice = await joined.signed_in("alice")
    page = await alice.go(LAB)
    assert (page.status_code, str(page.url)) == (200, LAB)
    assert visitor(joined.upstream.requests[-1]) == "alice"
    hosts = {address.split("/")[2] for address in alice.seen}
    assert hosts == {"hub.test", "alice.hub.test"}

    cookies = {cookie.name: cookie for cookie in alice.client.cookies.jar}
    assert cookies["__Host-jupyterhub-hub-login"].domain == "hub.test"
    assert cookies["__Host-jupyterhub-hub-login"].path == "/"
    assert cookies["jupyterhub-session-id"].domain == ".hub.test"
    (session,) = (name for name in cookies if name.startswith("__Host-carrel-session-"))
    assert cookies[session].domain == "alice.hub.test"
    for request in joined.upstream.requests:
        sent = request.one("cookie") or ""
        assert "carrel-" not in sent
        assert "jupyterhub-" not in sent


async def test_the_home_page_opens_the_server_on_its_own_host(joined: Joined) -> None:
    await joined.server("alice")
    alice = await joined.signed_in("alice")
    home = await alice.go(f"{HUB}/hub/home")
    assert f'href="{ALICE}/user/alice/"' in home.text
    policy = home.headers["content-security-policy"]
    assert "form-action 'self' https://*.hub.test;" in policy


async def test_a_next_on_a_users_host_is_followed_and_no_other(joined: Joined) -> None:
    await joined.server("alice")
    alice = await joined.signed_in("alice")
    for wanted in (LAB, "/user/alice/lab?x=1"):
        page = await alice.go(f"{HUB}/hub/login?next={wanted.replace('?', '%3F')}")
        assert str(page.url) == LAB
    for evil in (
        "https://evil.test/",
        "https://alice.hub.test.evil.test/",
        "https://evilhub.test/",
        "https://a@evil.test:x@alice.hub.test/",
        "https://alice.hub.test:444/user/alice/lab",
        "http://alice.hub.test/user/alice/lab",
    ):
        page = await alice.go(f"{HUB}/hub/login?next={evil}")
        assert str(page.url) == f"{ALICE}/user/alice/", evil


async def test_the_hub_has_no_pages_and_no_api_on_users_hosts(joined: Joined) -> None:
    await joined.server("alice")
    alice = await joined.signed_in("alice")
    home = await alice.go(f"{ALICE}/hub/home")
    assert str(home.url) == f"{HUB}/hub/home"
    person = joined.person()
    token = {"Authorization": "token x"}
    for path in ("/hub/api/user", "/hub/api", "/hub/login", "/hub/static/carrel.css"):
        reply = await person.client.get(f"{ALICE}{path}", headers={"Sec-Fetch-Mode": "cors"})
        assert reply.status_code == 404, path
        assert (await person.client.post(f"{ALICE}{path}", headers=token)).status_code == 404


async def test_a_stopped_servers_host_leads_to_the_hub(joined: Joined) -> None:
    await joined.user("alice")
    admin = await joined.signed_in("admin", admin=True)
    page = await admin.go(f"{ALICE}/user/alice/lab/tree/x?y=1")
    assert (page.status_code, page.url.host) == (424, "hub.test")
    assert "spawn/alice?next=https%3A%2F%2Falice.hub.test%2Fuser%2Falice%2Flab%2Ftree" in page.text
    api = await admin.client.get(f"{ALICE}/user/alice/api/kernels")
    assert api.status_code == 424
    assert api.json()["message"].endswith(f"{HUB}/hub/spawn/alice")


async def test_each_host_has_its_own_users_servers_alone(joined: Joined) -> None:
    await joined.server("alice")
    await joined.server("bob")
    admin = await joined.signed_in("root-of-all", admin=True)
    await admin.go(f"{ALICE}/user/bob/lab")
    assert str(admin.seen[-1]).startswith(f"{HUB}/hub/") or "bob.hub.test" in admin.seen[-1]
    assert joined.upstream.requests == []


async def test_signing_out_reaches_the_users_host(joined: Joined) -> None:
    await joined.server("alice")
    alice = await joined.signed_in("alice")
    await alice.go(LAB)
    assert (await alice.client.get(f"{ALICE}/user/alice/api")).status_code == 200
    page = await alice.go(f"{ALICE}/user/alice/logout")
    # There is no form to sign in by here, so it ends on a page that says it is done.
    assert (page.status_code, str(page.url)) == (200, f"{HUB}/hub/logout")
    await eventually(lambda: len(joined.proxy.verdicts) == 0)
    assert (await alice.client.get(f"{ALICE}/user/alice/api")).status_code == 403
    assert not [c for c in alice.client.cookies.jar if "login" in c.name or "session" in c.name]


async def test_the_api_names_addresses(joined: Joined) -> None:
    await joined.server("alice")
    alice = await joined.signed_in("alice")
    reply = await alice.client.get(f"{HUB}/hub/api/users/alice")
    model = reply.json()
    assert model["server"] == f"{ALICE}/user/alice/"
    assert model["servers"][""]["url"] == model["servers"][""]["full_url"] == model["server"]


async def test_a_path_of_the_whole_installation_goes_with_every_host(short_dir: Path) -> None:
    settings = {"public_url": f"{HUB}/jup/", "user_domains": True, "base_url": "/jup/"}
    async with join(short_dir, origin=HUB, **settings) as joined:
        await joined.server("alice")
        alice = await joined.signed_in("alice")
        page = await alice.go(f"{ALICE}/jup/user/alice/lab")
        assert (page.status_code, str(page.url)) == (200, f"{ALICE}/jup/user/alice/lab")
        page = await alice.go(f"{ALICE}/")
        assert page.url.host in ("alice.hub.test", "hub.test")
        assert page.status_code == 200
        page = await alice.go(f"{ALICE}/jup/hub/home")
        assert str(page.url) == f"{HUB}/jup/hub/home"


async def test_names_that_are_no_labels_get_hosts_of_their_own(joined: Joined) -> None:
    places = joined.hub.settings.places
    for name in ("zoë", "a.b", "a_b"):
        await joined.server(name)
        person = await joined.signed_in(name)
        page = await person.go(f"{places.url(name)}lab")
        assert page.status_code == 200
        assert page.url.host == places.host(name)
        assert visitor(joined.upstream.requests[-1]) == name


async def add_service(joined: Joined) -> None:
    async with joined.hub.database.write() as db:
        wanted = WantedService(name="wiki", url=joined.upstream.target)
        await put_service(db, joined.hub, wanted, actor="user:x", from_settings=False)
    await joined.until_current()


async def test_a_service_has_a_host_of_its_own_and_none_of_our_cookies(joined: Joined) -> None:
    await add_service(joined)
    alice = await joined.signed_in("alice")
    await alice.go(f"{HUB}/hub/home")
    wiki = await alice.go("https://wiki--service.hub.test/services/wiki/page")
    assert wiki.status_code == 200
    sent = joined.upstream.requests[-1].one("cookie") or ""
    assert "login" not in sent
    session = next(c for c in alice.client.cookies.jar if c.name == "jupyterhub-session-id")
    assert session.value is not None
    assert session.value not in sent
    assert "jupyterhub-session-id=" in sent, "a stand-in, by which it knows of a sign-out"
    before = len(joined.upstream.requests)
    assert (await alice.go(f"{HUB}/services/wiki/page")).status_code == 404
    assert len(joined.upstream.requests) == before


async def test_a_service_that_is_forgotten_has_no_route(joined: Joined) -> None:
    await add_service(joined)
    async with joined.hub.database.write() as db:
        row = await find_service(db, "wiki")
        assert row is not None
        await delete_service(db, joined.hub, row, actor="user:x")
    await joined.until_current()
    assert joined.proxy.table.status.routes == 2


async def test_servers_call_the_api_by_an_address_of_its_own(short_dir: Path) -> None:
    """Stock servers know no names below the hub's, nor its certificate."""
    settings = {
        "public_url": f"{HUB}/",
        "user_domains": True,
        "api_url": "http://127.0.0.1:1/hub/api",
    }
    async with join(short_dir, origin=HUB, **settings) as joined:
        client = joined.person().client
        assert (await client.get("http://127.0.0.1:1/hub/api")).status_code == 200
        assert (await client.get("http://127.0.0.1:1/hub/api/user")).status_code == 403
        for path in ("/hub/login", "/hub/home"):
            reply = await client.get(f"http://127.0.0.1:1{path}")
            assert (reply.status_code, reply.headers["location"]) == (302, f"{HUB}{path}")
        for path in ("/", "/user/alice/"):
            assert (await client.get(f"http://127.0.0.1:1{path}")).status_code == 404, path
        assert (await client.get("http://127.0.0.2:1/hub/api")).status_code == 421

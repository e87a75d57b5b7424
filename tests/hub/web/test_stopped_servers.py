"""What comes to the hub because a server is not there, and what lies outside the hub's path."""

from urllib.parse import parse_qs, urlsplit

import pytest
from hub.auth.test_subjects import new_token
from hub.web.site import Site, has_element, open_site

from carrel_hub.spawns.service import ensure_server

JSON = {"accept": "application/json"}


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/", "/hub/"),
        ("/user/alice/lab?x=1", "/hub/user/alice/lab?x=1"),
        ("/user/a%40b/%2e/x", "/hub/user/a%40b/%2e/x"),
        ("/anything", "/hub/anything"),
        ("/hub", "/hub/"),
        ("/hub?next=x", "/hub/?next=x"),
        ("/user/alice", "/user/alice/"),
        ("/user/alice?x", "/user/alice/?x"),
        ("/services/x", "/services/x/"),
        ("//evil.example/", "/hub//evil.example/"),
    ],
)
async def test_what_lies_outside_is_sent_to_the_hub(site: Site, path: str, location: str) -> None:
    reply = await site.client().get(f"http://hub.test:8000{path}")
    assert reply.status_code in (301, 302)
    assert reply.headers["location"] == location


async def test_a_prefix_is_kept() -> None:
    async with open_site(base_url="/jup/") as site:
        for path, location in (
            ("/jup/", "/jup/hub/"),
            ("/jup/user/alice/lab", "/jup/hub/user/alice/lab"),
            ("/jup/hub", "/jup/hub/"),
        ):
            assert (await site.client().get(path)).headers["location"] == location
        assert (await site.client().get("/elsewhere")).status_code == 404
        assert (await site.client().get("/jup/hub/nothing")).status_code == 404


async def test_nothing_outside_is_changed(site: Site) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert (await site.client().request(method, "/elsewhere")).status_code == 405


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "home", 405),
        ("DELETE", "token", 405),
        ("PUT", "spawn/alice", 405),
        ("POST", "logout", 405),
        ("PATCH", "error/404", 405),
        ("GET", "security/csp-report", 405),
        ("POST", "nothing/here", 404),
    ],
)
async def test_a_page_for_another_method_is_405(
    site: Site, method: str, path: str, status: int
) -> None:
    assert (await site.client().request(method, f"/hub/{path}")).status_code == status


async def test_what_is_not_there_is_a_404_page(site: Site) -> None:
    reply = await site.browser().get("/hub/nothing/here")
    assert reply.status_code == 404
    assert "text/html" in reply.headers["content-type"]


async def test_a_person_gets_a_page_that_starts_the_server(site: Site) -> None:
    browser = await site.signed_in("alice")
    page = await browser.follow(await browser.get("/user/alice/lab/tree/x?y=1"))
    assert page.status_code == 424
    assert has_element(page, "start")
    start = page.text.partition('id="start"')[2].partition('href="')[2].partition('"')[0]
    assert parse_qs(urlsplit(start).query)["next"] == ["/user/alice/lab/tree/x?y=1"]
    assert urlsplit(start).path == "/hub/spawn/alice"


@pytest.mark.parametrize("state", ["queued", "starting", "stopping", "failed"])
async def test_a_start_under_way_is_shown(site: Site, state: str) -> None:
    browser = await site.signed_in("alice")
    await site.add_server("alice", state)
    reply = await browser.get("/hub/user/alice/lab")
    assert reply.status_code == 303
    assert reply.headers["location"] == "/hub/spawn-pending/alice?next=%2Fuser%2Falice%2Flab"


async def test_jupyterlabs_calls_get_424_so_that_it_offers_a_restart(site: Site) -> None:
    browser = await site.signed_in("alice")
    for state in ("stopped", "queued", "starting", "stopping", "failed", "unknown"):
        await site.add_server("alice", state)
        for reply in (
            await browser.get("/hub/user/alice/api/kernels", sec_fetch_mode="cors"),
            await browser.get("/hub/user/alice/lab/extensions", **JSON),
        ):
            assert reply.status_code == 424, state
            assert reply.headers["content-type"] == "application/json"
            assert reply.json().keys() == {"message"}
            assert "/hub/spawn/alice" in reply.json()["message"]


async def test_the_place_where_it_is_started_is_escaped_once(site: Site) -> None:
    reply = await site.client().post("/user/a%20b@c/api/kernels")
    assert reply.json()["message"].startswith("The server of a b@c is not running")
    assert reply.json()["message"].endswith("/hub/spawn/a%20b@c")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_changing_calls_get_424_too(site: Site, method: str) -> None:
    client = site.client()
    reply = await client.request(method, "/user/alice/api/kernels", json={})
    assert reply.status_code == 424
    browser = await site.signed_in("alice")
    reply = await browser.client.request(method, "/hub/user/alice/api/kernels", json={})
    assert reply.status_code == 403, "the sign-in alone is not enough to change something"
    headers = {"X-XSRFToken": str(browser.client.cookies["_xsrf"])}
    path = "/hub/user/alice/api/kernels"
    reply = await browser.client.request(method, path, json={}, headers=headers)
    assert reply.status_code == 424


async def test_a_program_with_a_token_is_sent_to_the_hub_and_answered_there(site: Site) -> None:
    await site.add_user("alice")
    await site.add_user("bob")
    headers = {"Authorization": f"token {await new_token(site, 'alice')}"}
    client = site.client()
    reply = await client.get("/user/alice/api/kernels?x=1", headers=headers)
    assert reply.status_code == 302
    assert reply.headers["location"] == "/hub/user/alice/api/kernels?x=1"
    for owner, status in (("alice", 424), ("bob", 404)):
        reply = await client.get(f"/hub/user/{owner}/api/kernels", headers=headers)
        assert reply.status_code == status
        reply = await client.post(f"/user/{owner}/api/kernels", headers=headers)
        assert reply.status_code == status


async def test_others_servers_look_like_none(site: Site) -> None:
    await site.add_user("bob")
    await site.add_server("bob", "stopped")
    browser = await site.signed_in("alice")
    texts = set()
    for name in ("bob", "nobody"):
        reply = await browser.get(f"/hub/user/{name}/lab")
        assert reply.status_code == 404
        texts.add(reply.text)
    assert len(texts) == 1


async def test_who_is_not_signed_in_is_sent_to_do_that(site: Site) -> None:
    for path in ("/hub/user/alice/lab", "/hub/user/alice/api/kernels"):
        reply = await site.browser().get(path)
        assert reply.status_code == 302
        assert reply.headers["location"].startswith("/hub/login?next=")


async def test_a_server_that_runs_after_all_is_tried_again_but_not_for_ever(site: Site) -> None:
    browser = await site.signed_in("alice")
    await site.add_server("alice", "ready")
    reply = await browser.get("/hub/user/alice/lab?x=1")
    assert (reply.status_code, reply.headers["location"]) == (
        302,
        "/user/alice/lab?x=1&redirects=1",
    )
    reply = await browser.get("/hub/user/alice/lab?x=1&redirects=4")
    assert reply.status_code == 500
    assert "administrator" in reply.text


async def test_the_way_back_from_signing_in_is_not_walked_twice(site: Site) -> None:
    browser = await site.signed_in("alice")
    page = await browser.get("/hub/user/alice/oauth_callback?code=c&state=s")
    assert page.status_code == 424
    assert "next=%2Fuser%2Falice%2F&#34;" in page.text or 'next=%2Fuser%2Falice%2F"' in page.text


async def test_a_server_with_a_name_is_told_from_a_path_of_the_default_one() -> None:
    async with open_site(allow_named_servers=True) as site:
        browser = await site.signed_in("alice")
        alice = await site.world.user("alice")
        async with site.hub.database.write() as db:
            await ensure_server(db, alice, "lab", at=site.clock.now())
        for path, start in (
            ("lab/tree", "/hub/spawn/alice/lab?"),
            ("lab", "/hub/spawn/alice?"),
            ("other/tree", "/hub/spawn/alice?"),
        ):
            page = await browser.get(f"/hub/user/alice/{path}")
            assert page.status_code == 424
            assert f'href="{start}' in page.text
        headers = {"Accept": "application/json"}
        reply = await browser.client.get("/hub/user/alice/lab/api/kernels", headers=headers)
        assert (reply.status_code, "/hub/spawn/alice/lab" in reply.text) == (424, True)
        back = await browser.get("/hub/user/alice/lab/oauth_callback?code=x")
        assert "next=%2Fuser%2Falice%2Flab%2F" in back.text
        bob = await site.signed_in("bob")
        assert (await bob.get("/hub/user/alice/lab/tree")).status_code == 404

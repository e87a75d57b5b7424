"""The page that accepts a share, and the servers of others on the home page."""

from collections.abc import AsyncIterator
from urllib.parse import urlencode

import pytest
from hub.web.site import Browser, Site, form_of, has_element, open_site
from hub.web.test_every_page import check_page

from carrel_hub.auth.subjects import Subject, SubjectKind
from carrel_hub.db.models import Share
from carrel_hub.shares.codes import issue_code
from carrel_hub.shares.store import grant_share

MINUTE = 60


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with open_site(extra_user_scopes=["shares!user"]) as made:
        await made.add_user("alice")
        await made.add_server("alice")
        yield made


async def new_code(site: Site, *scopes: str) -> str:
    from datetime import timedelta

    user, server = await site.world.user("alice"), await site.add_server("alice")
    async with site.hub.database.write() as db:
        _, secret = await issue_code(
            db, site.hub, server, [*scopes] or ["access:servers"],
            lifetime=timedelta(seconds=MINUTE), by=Subject(SubjectKind.COOKIE, user),
        )  # fmt: skip
    return secret


def page_of(code: str, **more: str) -> str:
    return f"/hub/accept-share?{urlencode({'code': code, **more})}"


async def test_a_link_is_looked_at_then_accepted(site: Site) -> None:
    address = page_of(await new_code(site))
    stranger = site.browser()
    first = await stranger.get(address)
    assert first.headers["location"] == f"/hub/login?{urlencode({'next': address})}"
    bob = await site.signed_in("bob")
    page = await bob.get(address)
    check_page(page)
    assert page.headers["referrer-policy"] == "no-referrer"
    assert "alice shares a server with you" in page.text
    assert "open it, and do there what its owner can" in page.text
    assert not has_element(page, "stopped")
    assert await site.all(Share) == [], "looking accepts nothing"
    done = await bob.press(page, "accept")
    assert (done.status_code, done.headers["location"]) == (302, "/user/alice/")
    [share] = await site.all(Share)
    assert (share.user_id, share.scopes) == (
        (await site.world.user("bob")).id, ["access:servers"],
    )  # fmt: skip
    again = await bob.press(await bob.get(address), "accept")
    assert again.status_code == 302
    assert len(await site.all(Share)) == 1


async def test_it_goes_on_to_a_place_of_ours_only(site: Site) -> None:
    code = await new_code(site)
    bob = await site.signed_in("bob")
    for wanted, reached in (
        ("/user/alice/lab/tree/a?b=c", "/user/alice/lab/tree/a?b=c"),
        ("https://evil.test/", "/user/alice/"),
        ("//evil.test/", "/user/alice/"),
    ):
        done = await bob.press(await bob.get(page_of(code, next=wanted)), "accept")
        assert done.headers["location"] == reached


async def test_a_link_that_shares_nothing(site: Site) -> None:
    code = await new_code(site)
    bob = await site.signed_in("bob")
    page = await bob.get(page_of(code))
    site.clock.advance(MINUTE)
    nothing = {page_of(code): 404, page_of("x"): 404, page_of(""): 404, "/hub/accept-share": 400}
    for address, status in nothing.items():
        reply = await bob.get(address)
        assert reply.status_code == status
        check_page(reply)
        assert "Ask whoever gave it to you" in reply.text
    late = await bob.press(page, "accept")
    assert late.status_code == 400
    assert await site.all(Share) == []


async def test_ones_own_link_is_for_others(site: Site) -> None:
    code = await new_code(site)
    alice = await site.signed_in("alice")
    page = await alice.get(page_of(code))
    assert page.status_code == 403
    assert "your own server" in page.text
    form = form_of(await alice.get("/hub/home"), "stop")
    reply = await alice.post("/hub/accept-share", form["fields"] | {"code": code})
    assert reply.status_code == 400


async def test_nobody_is_made_to_accept_by_a_page_of_others(site: Site) -> None:
    code = await new_code(site)
    bob = await site.signed_in("bob")
    form = form_of(await bob.get(page_of(code)), "accept")
    for fields, headers in (
        ({"code": code}, {}),
        ({"code": code, "_xsrf": "x"}, {}),
        (form["fields"], {"sec_fetch_site": "cross-site"}),
    ):
        reply = await bob.post("/hub/accept-share", fields, **headers)
        assert reply.status_code == 403
    assert await site.all(Share) == []
    framed = await bob.get(page_of(code), sec_fetch_mode="cors")
    assert framed.status_code == 403


async def test_a_stopped_server_is_said_to_be_stopped(site: Site) -> None:
    bob = await site.signed_in("bob")
    for scopes, words in ((["access:servers"], True), (["access:servers", "servers"], False)):
        code = await new_code(site, *scopes)
        await site.add_server("alice", "stopped")
        page = await bob.get(page_of(code))
        assert has_element(page, "stopped")
        assert ("You cannot start it yourself" in page.text) is words


async def share(site: Site, *scopes: str, name: str = "bob") -> None:
    server, user = await site.add_server("alice"), await site.world.user(name)
    async with site.hub.database.write() as db:
        await grant_share(db, server, user, scopes, at=site.clock.now(), actor="user:alice")


def shows(page_text: str, words: str) -> bool:
    _, _, table = page_text.partition('id="shared"')
    return words in table.partition("</table>")[0]


async def test_the_home_page_shows_what_others_share(site: Site) -> None:
    bob = await site.signed_in("bob")
    assert not has_element(await bob.get("/hub/home"), "shared")
    await share(site, "access:servers")
    home = await bob.get("/hub/home")
    check_page(home)
    assert shows(home.text, 'href="/user/alice/"')
    assert shows(home.text, "Running")
    assert not shows(home.text, "/hub/stop/alice")
    await share(site, "servers")
    home = await bob.get("/hub/home")
    assert shows(home.text, "/hub/stop/alice")
    await site.add_server("alice", "stopped")
    home = await bob.get("/hub/home")
    assert shows(home.text, "/hub/spawn/alice")
    assert not shows(home.text, 'href="/user/alice/"')
    alice = await site.signed_in("alice")
    assert not has_element(await alice.get("/hub/home"), "shared")


async def give_back(browser: Browser, fields: dict[str, str], owner: str = "alice") -> int:
    return (await browser.post(f"/hub/leave-share/{owner}", fields)).status_code


async def test_what_is_shared_is_given_back_by_a_button(site: Site) -> None:
    bob = await site.signed_in("bob")
    await share(site, "access:servers")
    home = await bob.get("/hub/home")
    assert shows(home.text, 'action="/hub/leave-share/alice"')
    assert await give_back(bob, {}) == 403, "a form of ours says so"
    token = form_of(home, "stop" if has_element(home, "stop") else "start")["fields"]["_xsrf"]
    assert await give_back(bob, {"_xsrf": token}) == 303
    assert await site.all(Share) == []
    assert [event.actor for event in await site.events("share.revoked")] == ["user:bob"]
    assert await give_back(bob, {"_xsrf": token}) == 404

"""Signing out closes every door that the browser had opened."""

from hub.web.site import Site, has_element, open_site
from hub.web.test_every_page import check_page
from msgspec import to_builtins

from carrel_hub.auth.digest import digest
from carrel_hub.db.models import Server, Token
from carrel_shared.wire.routes import Revocation


async def test_signing_out_ends_session_tokens_and_what_proxies_remember(site: Site) -> None:
    browser = await site.signed_in("alice")
    other = await site.signed_in("alice")
    await site.add_server("alice")
    [mine, others] = await site.sessions()
    async with site.hub.database.write() as db:
        for number, row in enumerate((mine, others)):
            db.add(
                Token(
                    token_hash=digest(str(number)),
                    user_id=row.user_id,
                    session_hash=row.session_hash,
                    created=site.clock.now(),
                )
            )
    cookies = dict(browser.client.cookies)
    reply = await browser.get("/hub/logout")
    assert (reply.status_code, reply.headers["location"]) == (302, "/hub/login")
    assert dict(browser.client.cookies) == {}
    assert [row.session_hash for row in await site.sessions()] == [others.session_hash]
    assert [row.session_hash for row in await site.tokens()] == [others.session_hash]
    assert [change["revocation"] for change in await site.changes()] == [
        to_builtins(Revocation(session_hash=mine.session_hash))
    ]
    # Whoever kept the cookies has nothing of them.
    again = site.browser()
    for name, value in cookies.items():
        again.client.cookies.set(name, value, domain="hub.test", path="/hub/")
    assert (await again.get("/hub/home")).is_redirect
    assert (await other.get("/hub/home")).status_code == 200


async def test_signing_out_twice_is_harmless(site: Site) -> None:
    browser = site.browser()
    for _ in range(2):
        assert (await browser.get("/hub/logout")).headers["location"] == "/hub/login"
    assert await site.changes() == []


async def test_the_session_id_is_given_again_to_a_browser_that_lost_it(site: Site) -> None:
    browser = await site.signed_in("alice")
    before = browser.client.cookies["jupyterhub-session-id"]
    browser.client.cookies.delete("jupyterhub-session-id", domain="hub.test", path="/")
    await browser.get("/hub/home")
    assert browser.client.cookies["jupyterhub-session-id"] == before
    [row] = await site.sessions()
    assert digest(str(before)) == row.session_hash


async def test_who_was_signed_in_without_a_form_is_not_at_once_again() -> None:
    async with open_site(auth={"authenticator": "none"}) as site:
        browser = await site.signed_in("alice")
        page = await browser.get("/hub/logout")
        assert (page.status_code, has_element(page, "sign-in-again")) == (200, True)
        check_page(page)
        assert dict(browser.client.cookies).keys() <= {"_xsrf"}
        assert await site.sessions() == []
        assert (await browser.get("/hub/home")).is_redirect
        assert (await browser.get("/hub/logout")).status_code == 200, "once more is harmless"


async def test_servers_end_with_a_sign_out_where_the_settings_say_so(site: Site) -> None:
    await site.add_user("bob")
    await site.add_server("bob")
    browser = await site.signed_in("alice")
    await site.add_server("alice")
    await browser.get("/hub/logout")
    assert {row.state for row in await site.all(Server)} == {"ready"}, "not unless they do"
    site.world.change_settings(shutdown_on_logout=True)
    browser = await site.signed_in("alice")
    await browser.get("/hub/logout", sec_fetch_site="cross-site")
    assert {row.state for row in await site.all(Server)} == {"ready"}, "nor for another site"
    assert await site.sessions() == []
    browser = await site.signed_in("alice")
    await browser.get("/hub/logout", sec_fetch_site="same-origin")
    states = {row.user_id: row.state for row in await site.all(Server)}
    alice, bob = await site.world.user("alice"), await site.world.user("bob")
    assert states == {alice.id: "stopped", bob.id: "ready"}
    [asked] = await site.events("server.stop_requested")
    assert (asked.actor, asked.message) == ("user:alice", "alice signed out.")


async def test_one_browser_signs_all_others_out(site: Site) -> None:
    await site.signed_in("bob")
    browser, other = await site.signed_in("alice"), await site.signed_in("alice")
    page = await browser.get("/hub/token")
    assert (page.text.count("another one"), page.text.count("this one")) == (1, 1)
    reply = await browser.press(page, "logout-elsewhere")
    assert (reply.status_code, reply.headers["location"]) == (303, "/hub/token")
    assert (await other.get("/hub/home")).is_redirect
    page = await browser.get("/hub/token")
    assert not has_element(page, "logout-elsewhere")
    assert len(await site.sessions()) == 2, "bob's is nobody else's business"
    assert (await site.browser().post("/hub/logout-elsewhere", {})).status_code == 403

"""Signing out closes every door that the browser had opened."""

from hub.web.site import Site

from carrel_hub.auth.digest import digest
from carrel_hub.db.models import Token
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
        Revocation(session_hash=mine.session_hash).model_dump()
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

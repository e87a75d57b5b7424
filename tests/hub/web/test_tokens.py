"""The page of tokens."""

import html
from datetime import timedelta
from urllib.parse import urlencode

import httpx
import pytest
from hub.auth.test_subjects import new_token
from hub.web.site import Browser, Site, form_of
from hub.web.test_every_page import check_page

from carrel_hub.app import create_public_app


async def who(site: Site, token: str) -> int:
    transport = httpx.ASGITransport(create_public_app(site.hub))
    async with httpx.AsyncClient(transport=transport, base_url="http://hub") as client:
        headers = {"Authorization": f"token {token}"}
        return (await client.get("/hub/api/user", headers=headers)).status_code


async def test_a_token_is_made_shown_once_used_and_revoked(site: Site) -> None:
    browser = await site.signed_in("alice")
    page = await browser.get("/hub/token")
    shown = await browser.press(page, "make-token", note="<b>laptop</b>", lifetime="3600")
    assert shown.status_code == 200
    assert shown.headers["cache-control"] == "no-store"
    secret = shown.text.split('id="new-token">')[1].split("<")[0]
    assert await who(site, secret) == 200
    again = await browser.get("/hub/token")
    assert secret not in again.text
    assert "&lt;b&gt;laptop&lt;/b&gt;" in again.text
    [row] = await site.tokens()
    form = {"_xsrf": str(browser.client.cookies["_xsrf"])}
    assert (await browser.client.post(f"/hub/token/revoke/a{row.id}")).status_code == 403
    gone = await browser.client.post(f"/hub/token/revoke/a{row.id}", data=form)
    assert (gone.status_code, gone.headers["location"]) == (303, "/hub/token")
    assert await who(site, secret) == 403
    assert (await browser.client.post("/hub/token/revoke/a99", data=form)).status_code == 404
    assert [event.actor for event in await site.events("token.revoked")] == ["user:alice"]


async def test_what_was_opened_is_listed_once_and_closed_with_all_its_tokens(site: Site) -> None:
    browser = await site.signed_in("alice")
    for _ in range(2):
        await new_token(site, "alice")
    async with site.hub.database.write() as db:
        for row in await site.tokens():
            row.client_id = "service-grader"
            db.add(row)
    page = await browser.get("/hub/token")
    assert page.text.count("service-grader</th>") == 1
    form = {"_xsrf": str(browser.client.cookies["_xsrf"])}
    [first, _] = await site.tokens()
    await browser.client.post(f"/hub/token/revoke/a{first.id}", data=form)
    assert await site.tokens() == []


async def test_nobody_revokes_anothers_and_no_other_lifetime_is_given(site: Site) -> None:
    await site.add_user("bob")
    await new_token(site, "bob")
    [row] = await site.tokens()
    browser = await site.signed_in("alice")
    await browser.get("/hub/token")
    form = {"_xsrf": str(browser.client.cookies["_xsrf"])}
    refused = await browser.client.post(f"/hub/token/revoke/a{row.id}", data=form)
    assert refused.status_code == 404
    odd = await browser.client.post("/hub/token", data={**form, "lifetime": "5"})
    assert odd.status_code == 400
    assert len(await site.tokens()) == 1
    assert (await site.browser().get("/hub/token")).status_code == 302


async def make(browser: Browser, *fields: tuple[str, str]) -> httpx.Response:
    """Send the form of the page, fields of one name in their order."""
    form = form_of(await browser.get("/hub/token"), "make-token")
    sent = {**browser.headers, "Sec-Fetch-Site": "same-origin"}
    sent["Content-Type"] = "application/x-www-form-urlencoded"
    body = urlencode([("_xsrf", form["fields"]["_xsrf"]), *fields])
    return await browser.client.post(form["action"], content=body, headers=sent)


async def test_a_token_gets_the_scopes_that_are_chosen_and_no_others(site: Site) -> None:
    browser = await site.signed_in("alice")
    page = await browser.get("/hub/token")
    assert 'value="servers!user"' in page.text
    assert 'value="list:users"' not in page.text, "she may not list users, so no token of hers may"
    chosen = (("what", "some"), ("scope", "read:servers!user"), ("scopes", "read:users:name!user"))
    made = await make(browser, *chosen, ("lifetime", "31536000"))
    assert made.status_code == 200
    [row] = await site.tokens()
    assert row.scopes == ["read:servers!user", "read:users:name!user"]
    assert row.expires_at == site.clock.now() + timedelta(days=365)
    check_page(made)
    assert "2 scopes" in made.text
    everything = await make(browser, ("what", "all"))
    assert "everything you may" in everything.text
    assert [row.scopes for row in await site.tokens()][1:] == [["inherit"]]


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ((("what", "some"), ("scopes", "list:users read:hub")), 400, "not list:users, read:hub"),
        ((("what", "some"), ("scopes", "servers!user=bob")), 400, "not servers!user=bob"),
        ((("what", "some"), ("scopes", "fly")), 400, "There is no scope"),
        ((("what", "some"),), 400, "Say what the token may do"),
        ((("what", "all"), ("scopes", "tokens")), 400, "Choose one of the two"),
        ((("lifetime", "5"),), 400, "no such choice"),
    ],
)
async def test_what_is_not_ones_own_is_refused_by_name_and_the_form_kept(
    site: Site, fields: tuple[tuple[str, str], ...], status: int, words: str
) -> None:
    browser = await site.signed_in("alice")
    reply = await make(browser, ("note", "laptop"), *fields)
    assert reply.status_code == status
    check_page(reply)
    assert words in html.unescape(reply.text)
    assert 'value="laptop"' in reply.text
    assert await site.tokens() == []


async def test_an_administrator_is_offered_more(site: Site) -> None:
    browser = await site.signed_in("alice", admin=True)
    page = await browser.get("/hub/token")
    assert 'value="list:users"' in page.text
    assert (await make(browser, ("what", "some"), ("scope", "list:users"))).status_code == 200
    assert [row.scopes for row in await site.tokens()] == [["list:users"]]


async def test_the_place_one_is_at_is_marked_and_administrators_have_more(site: Site) -> None:
    boss, bob = await site.signed_in("alice", admin=True), await site.signed_in("bob")
    page = await boss.get("/hub/token")
    assert 'href="/hub/token" aria-current="page"' in page.text
    assert page.text.count("aria-current") == 1
    for place in ("admin", "hosts"):
        assert f'id="nav-{place}"' in page.text
        assert f'id="nav-{place}"' not in (await bob.get("/hub/token")).text


async def test_the_form_offers_no_longer_life_than_there_is(site: Site) -> None:
    site.world.change_settings(token_expires_in_max_seconds=2 * 86400)
    browser = await site.signed_in("alice")
    page = await browser.get("/hub/token")
    assert "2 days, the longest there is" in page.text
    assert ">a week<" not in page.text
    assert ">ever<" not in page.text
    await browser.press(page, "make-token", note="x", lifetime="")
    [row] = await site.tokens()
    assert row.expires_at == row.created + timedelta(days=2)
    refused = await browser.press(page, "make-token", note="x", lifetime="604800")
    assert refused.status_code == 400

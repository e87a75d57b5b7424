"""The page of tokens."""

import httpx
from hub.auth.test_subjects import new_token
from hub.web.site import Site

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

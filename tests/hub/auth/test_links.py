"""One-time sign-in links."""

import asyncio

from hub.web.site import Site, open_site

from carrel_hub.db.models import SignInLink


async def test_a_link_shows_a_button_and_the_button_signs_in(site: Site) -> None:
    await site.add_user("alice", admin=True)
    link = await site.new_link("alice")
    browser = site.browser()
    for _ in range(3):  # looking does not use it up: a mail program may look too
        page = await browser.get(link)
        assert page.status_code == 200
    assert page.headers["referrer-policy"] == "no-referrer"
    assert await site.sessions() == []
    reply = await browser.press(page, "sign-in")
    assert (reply.status_code, reply.headers["location"]) == (302, "/hub/spawn")
    assert (await browser.get("/hub/home")).status_code == 200
    [event] = await site.events("session.signed_in")
    assert event.data == {"how": "link"}


async def test_a_link_is_stored_as_a_hash(site: Site) -> None:
    await site.add_user("alice")
    secret = (await site.new_link("alice")).rsplit("/", 1)[1]
    [row] = await site.all(SignInLink)
    assert secret not in repr(row)
    assert len(secret) >= 43


async def test_a_link_works_once(site: Site) -> None:
    await site.add_user("alice")
    link = await site.new_link("alice")
    first, second = site.browser(), site.browser()
    page = await second.get(link)
    await first.press(await first.get(link), "sign-in")
    reply = await second.press(page, "sign-in")
    assert reply.status_code == 410
    assert "carrel link" in reply.text
    reply = await second.get(link)
    assert reply.status_code == 410
    assert "carrel link" in reply.text
    assert len(await site.sessions()) == 1


async def test_a_hundred_presses_at_once_make_one_session(site: Site) -> None:
    await site.add_user("alice")
    link = await site.new_link("alice")
    browser = site.browser()
    page = await browser.get(link)
    replies = await asyncio.gather(*(browser.press(page, "sign-in") for _ in range(100)))
    statuses = sorted(reply.status_code for reply in replies)
    assert statuses == [302] + [410] * 99
    assert len(await site.sessions()) == 1


async def test_a_link_lasts_ten_minutes(site: Site) -> None:
    await site.add_user("alice")
    link = await site.new_link("alice")
    browser = site.browser()
    page = await browser.get(link)
    site.clock.advance(601)
    assert (await browser.press(page, "sign-in")).status_code == 410
    assert await site.sessions() == []


async def test_a_link_works_only_on_this_machine(site: Site) -> None:
    await site.add_user("alice")
    link = await site.new_link("alice")
    here, there = site.browser("::1"), site.browser("192.0.2.1")
    assert (await there.get(link)).status_code == 403
    page = await here.get(link)
    assert page.status_code == 200
    fields = {"_xsrf": page.cookies["_xsrf"]}
    assert (await there.post(link, fields)).status_code == 403
    assert await site.sessions() == []
    assert (await here.press(page, "sign-in")).status_code == 302


async def test_a_link_works_anywhere_where_the_settings_say_so() -> None:
    async with open_site(auth={"link_from": "anywhere"}) as site:
        await site.add_user("alice")
        there = site.browser("192.0.2.1")
        page = await there.get(await site.new_link("alice"))
        assert (await there.press(page, "sign-in")).status_code == 302


async def test_a_press_without_the_pages_token_does_not_use_the_link_up(site: Site) -> None:
    await site.add_user("alice")
    link = await site.new_link("alice")
    browser = site.browser()
    page = await browser.get(link)
    assert (await browser.post(link, {})).status_code == 403
    assert (await browser.press(page, "sign-in")).status_code == 302


async def test_an_invented_link_is_told_apart_from_nothing(site: Site) -> None:
    for secret in ("x", "A" * 43, "A" * 5000):
        assert (await site.browser().get(f"/hub/sign-in/{secret}")).status_code == 410


async def test_a_hub_only_administrator_lands_at_home(site: Site) -> None:
    await site.add_user("admin", account=None, admin=True, console=True)
    browser = site.browser()
    reply = await browser.press(await browser.get(await site.new_link("admin")), "sign-in")
    assert reply.headers["location"] == "/hub/home"


async def test_signing_in_as_somebody_else_ends_what_was_open(site: Site) -> None:
    browser = await site.signed_in("alice")
    await site.add_user("bob")
    [old] = await site.sessions()
    page = await browser.get(await site.new_link("bob"))
    assert "alice" in page.text
    await browser.press(page, "sign-in")
    [new] = await site.sessions()
    assert new.session_hash != old.session_hash
    assert "bob" in (await browser.get("/hub/home")).text
    assert [change["revocation"]["session_hash"] for change in await site.changes()] == [
        old.session_hash
    ]

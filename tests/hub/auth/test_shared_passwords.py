"""A shared password is changed because somebody who knows it should not: sign-ins end with it."""

from typing import Any

from hub.auth.test_authenticators import ADMINS, SHARED
from hub.web.site import Browser, Site, open_site

from carrel_hub.startup import apply_settings


async def sign_in(site: Site, name: str, password: str) -> Browser:
    browser = site.browser()
    page = await browser.get("/hub/login")
    reply = await browser.press(page, "sign-in", username=name, password=password)
    assert reply.status_code == 302
    return browser


async def start_anew(site: Site, **changes: Any) -> None:
    """Start the hub with other settings of signing in."""
    auth = site.hub.settings.auth.model_validate({**SHARED, **changes})
    site.world.change_settings(auth=auth)
    await apply_settings(site.hub)


async def is_in(browser: Browser) -> bool:
    return (await browser.get("/hub/home")).status_code == 200


async def test_sign_ins_end_with_the_password_they_were_made_with() -> None:
    async with open_site(auth=SHARED) as site:
        await apply_settings(site.hub)
        carol = await sign_in(site, "carol", "everybody's")
        blue = await sign_in(site, "dave", "the blue one")
        boss = await sign_in(site, "boss", ADMINS)
        console = await site.signed_in("erin")
        await start_anew(site)
        assert [await is_in(one) for one in (carol, blue, boss, console)] == [True] * 4
        ended = (await site.sessions())[0].session_hash
        await start_anew(site, user_password="another one")
        assert [await is_in(one) for one in (carol, blue, boss, console)] == [False] + [True] * 3
        [change] = await site.changes()
        assert change["revocation"]["session_hash"] == ended, "proxies forget it too"
        [event] = await site.events("session.signed_out")
        assert (event.actor, event.subject) == ("hub", "user:carol")
        assert "no longer good" in event.message
        await start_anew(site, group_passwords={}, admin_password="b" * 32)
        assert [await is_in(one) for one in (blue, boss, console)] == [False, False, True]


async def test_who_becomes_an_administrator_signs_in_with_their_password() -> None:
    """Whoever knows everybody's password may have used the name before."""
    async with open_site(auth=SHARED) as site:
        carol = await sign_in(site, "carol", "everybody's")
        await start_anew(site, admin_users=["boss", "carol"])
        assert not await is_in(carol)


async def test_sign_ins_of_which_nobody_knows_end_where_passwords_are_shared() -> None:
    async with open_site(auth=SHARED) as site:
        carol = await sign_in(site, "carol", "everybody's")
        async with site.hub.database.write() as db:
            for row in await site.sessions():
                row.password_mark = None
                db.add(row)
        await start_anew(site)
        assert not await is_in(carol)


async def test_what_is_kept_does_not_tell_the_password() -> None:
    async with open_site(auth=SHARED) as site:
        for _ in range(2):
            await sign_in(site, "carol", "everybody's")
        marks = {row.password_mark for row in await site.sessions()}
        assert len(marks) == 1
        [mark] = marks
        assert mark
        assert len(mark) == 43
        assert "everybody" not in mark


async def test_sign_ins_with_a_shared_password_end_when_none_is_shared_any_more() -> None:
    async with open_site(auth=SHARED) as site:
        carol = await sign_in(site, "carol", "everybody's")
        await start_anew(site, authenticator="dummy")
        assert not await is_in(carol)
        dummy = await sign_in(site, "carol", "anything")
        await start_anew(site, authenticator="dummy")
        assert await is_in(dummy)

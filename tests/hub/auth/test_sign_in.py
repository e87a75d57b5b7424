"""Signing in with a password, and what keeps people out."""

import asyncio
from dataclasses import replace

import anyio
import httpx
import pytest
from hub.web.site import Site, build_app, has_element, open_site

from carrel_hub.auth.pam_client import check_password
from carrel_hub.db.models import LoginAttempt, User
from carrel_hub.errors import UnavailableError
from carrel_hub.spawns.agents import AgentClients

GOOD = {"username": "alice", "password": "correct horse"}


async def test_a_right_password_signs_in_and_leads_to_a_server(site: Site) -> None:
    site.pam.passwords["alice"] = GOOD["password"]
    browser = site.browser()
    page = await browser.get("/hub/login")
    assert page.status_code == 200
    reply = await browser.press(page, "sign-in", **GOOD)
    assert (reply.status_code, reply.headers["location"]) == (302, "/hub/spawn")
    cookies = {cookie.name: cookie for cookie in browser.client.cookies.jar}
    assert cookies["jupyterhub-hub-login"].path == "/hub/"
    assert cookies["jupyterhub-session-id"].path == "/"
    assert cookies["_xsrf"].path == "/hub/"
    home = await browser.get("/hub/home")
    assert home.status_code == 200
    assert "alice" in home.text
    [event] = await site.events("session.signed_in")
    assert (event.actor, event.data) == ("user:alice", {"how": "password"})


async def test_cookies_are_kept_from_scripts_and_secure_over_https() -> None:
    async with open_site(public_url="https://hub.test:8000/") as site:
        site.pam.passwords["alice"] = GOOD["password"]
        client = site.client()
        page = await client.get("/hub/login")
        token = page.cookies["_xsrf"]
        headers = {"Cookie": f"_xsrf={token}"}  # this client speaks http, the proxy did not
        reply = await client.post("/hub/login", data=GOOD | {"_xsrf": token}, headers=headers)
        assert reply.status_code == 302
        set_cookies = {
            text.split("=", 1)[0]: text.lower() for text in reply.headers.get_list("set-cookie")
        }
        for name in ("jupyterhub-hub-login", "jupyterhub-session-id"):
            assert "httponly" in set_cookies[name]
            assert "samesite=lax" in set_cookies[name]
            assert "secure" in set_cookies[name]
        assert "httponly" not in set_cookies["_xsrf"]


async def test_a_script_signs_in_with_the_cookie_and_a_query_argument(site: Site) -> None:
    """The recipe that scripts for JupyterHub use: no browser headers, the token from the cookie."""
    site.pam.passwords["alice"] = GOOD["password"]
    client = site.client()
    page = await client.get("/hub/login")
    reply = await client.post(f"/hub/login?_xsrf={page.cookies['_xsrf']}", data=GOOD)
    assert reply.is_redirect
    assert (await client.get("/hub/home")).status_code == 200


async def test_a_wrong_password_is_403_and_says_so_the_same_for_every_name(site: Site) -> None:
    site.pam.passwords["alice"] = GOOD["password"]
    browser = site.browser()
    texts = []
    for name in ("alice", "nobody-of-that-name"):
        page = await browser.get("/hub/login")
        reply = await browser.press(page, "sign-in", username=name, password="wrong")
        assert reply.status_code == 403
        assert "login_error" in reply.text
        texts.append(reply.text.replace(name, "NAME"))
    assert texts[0] == texts[1]
    assert site.pam.asked == ["alice", "nobody-of-that-name"]
    assert await site.sessions() == []


async def test_who_is_not_allowed_is_told_after_the_password_was_right(site: Site) -> None:
    site.pam.passwords["carol"] = "pw"
    browser = site.browser()
    page = await browser.get("/hub/login")
    reply = await browser.press(page, "sign-in", username="carol", password="pw")
    assert reply.status_code == 403
    assert "allowed_users" in reply.text
    assert await site.all(User) == []
    assert [event.actor for event in await site.events("session.refused")] == ["user:carol"]


async def test_a_disabled_user_is_kept_out_and_loses_what_is_open(site: Site) -> None:
    """ADV-18."""
    site.pam.passwords["alice"] = GOOD["password"]
    browser = await site.signed_in("alice")
    assert (await browser.get("/hub/home")).status_code == 200
    await site.add_user("alice", disabled=True)
    assert (await browser.get("/hub/home")).is_redirect
    page = await browser.get("/hub/login")
    reply = await browser.press(page, "sign-in", **GOOD)
    assert reply.status_code == 403
    assert "no longer" in reply.text


async def test_nobody_takes_the_name_of_the_consoles_administrator(site: Site) -> None:
    """`admin` without a unix account is the hub's own; a unix account of that name is not it."""
    await site.add_user("admin", account=None, admin=True, console=True)
    site.pam.passwords["admin"] = "pw"
    browser = site.browser()
    page = await browser.get("/hub/login")
    reply = await browser.press(page, "sign-in", username="admin", password="pw")
    assert reply.status_code == 403
    assert await site.sessions() == []


async def test_an_account_with_another_name_is_refused(site: Site) -> None:
    site.pam.passwords["alice"] = "pw"
    site.pam.accounts["alice"] = "Alice.Smith"
    browser = site.browser()
    page = await browser.get("/hub/login")
    reply = await browser.press(page, "sign-in", username="alice", password="pw")
    assert reply.status_code == 403
    assert await site.all(User) == []


async def test_an_administrator_in_the_settings_becomes_one() -> None:
    async with open_site(auth={"admin_users": ["alice"]}) as site:
        site.pam.passwords["alice"] = "pw"
        browser = site.browser()
        page = await browser.get("/hub/login")
        await browser.press(page, "sign-in", username=" ALICE ", password="pw")
        assert (await site.world.user("alice")).admin


async def test_the_form_without_its_token_signs_nobody_in(site: Site) -> None:
    site.pam.passwords["alice"] = GOOD["password"]
    browser = site.browser()
    await browser.get("/hub/login")
    reply = await browser.post("/hub/login", GOOD)
    assert reply.status_code == 403
    assert has_element(reply, "sign-in")
    assert site.pam.asked == []


async def test_a_token_of_another_browser_signs_nobody_in(site: Site) -> None:
    """ADV-04."""
    site.pam.passwords["alice"] = GOOD["password"]
    attacker, victim = site.browser("203.0.113.9"), site.browser()
    stolen = (await attacker.get("/hub/login")).cookies["_xsrf"]
    await victim.get("/hub/login")
    victim.client.cookies.set("_xsrf", stolen, domain="hub.test", path="/hub/")
    reply = await victim.post("/hub/login", GOOD | {"_xsrf": stolen})
    assert reply.status_code == 403
    assert site.pam.asked == []


async def test_too_many_failures_from_an_address_must_wait() -> None:
    async with open_site(auth={"max_failures": 3, "failure_window_seconds": 60}) as site:
        site.pam.passwords["alice"] = GOOD["password"]
        browser = site.browser()
        for number in range(3):
            page = await browser.get("/hub/login")
            reply = await browser.press(page, "sign-in", username=f"user{number}", password="x")
            assert reply.status_code == 403
        page = await browser.get("/hub/login")
        reply = await browser.press(page, "sign-in", **GOOD)
        assert reply.status_code == 429
        assert 0 < int(reply.headers["retry-after"]) <= 61
        assert len(site.pam.asked) == 3
        other = site.browser("192.0.2.7")
        reply = await other.press(await other.get("/hub/login"), "sign-in", **GOOD)
        assert reply.status_code == 302
        site.clock.advance(61)
        reply = await browser.press(page, "sign-in", **GOOD)
        assert reply.status_code == 302
        assert await site.all(LoginAttempt) == []


async def test_too_many_failures_for_a_name_must_wait_from_everywhere() -> None:
    async with open_site(auth={"max_failures_for_name": 2}) as site:
        site.pam.passwords["alice"] = GOOD["password"]
        for number in range(3):
            browser = site.browser(f"192.0.2.{number}")
            page = await browser.get("/hub/login")
            reply = await browser.press(page, "sign-in", username="alice", password="x")
        assert reply.status_code == 429
        assert len(site.pam.asked) == 2


async def test_one_guesser_keeps_nobody_out() -> None:
    async with open_site(auth={"max_failures": 3}) as site:
        site.pam.passwords["alice"] = GOOD["password"]
        guesser, alice = site.browser("203.0.113.9"), site.browser()
        page = await guesser.get("/hub/login")
        for _ in range(6):
            reply = await guesser.press(page, "sign-in", username="alice", password="x")
        assert reply.status_code == 429
        reply = await alice.press(await alice.get("/hub/login"), "sign-in", **GOOD)
        assert reply.status_code == 302


async def test_attempts_at_once_are_all_counted() -> None:
    async with open_site(auth={"max_failures": 4}) as site:
        browser = site.browser()
        page = await browser.get("/hub/login")
        replies = await asyncio.gather(
            *(
                browser.press(page, "sign-in", username="alice", password=f"guess {number}")
                for number in range(20)
            )
        )
        assert sorted({reply.status_code for reply in replies}) == [403, 429]
        assert len(site.pam.asked) == 4


async def test_without_carrel_pam_the_page_says_so_and_nothing_is_counted(site: Site) -> None:
    await site.pam.stop()
    browser = site.browser()
    page = await browser.get("/hub/login")
    reply = await browser.press(page, "sign-in", **GOOD)
    assert reply.status_code == 503
    assert "login_error" in reply.text
    assert await site.all(LoginAttempt) == []


async def test_nonsense_from_carrel_pam_signs_nobody_in(site: Site) -> None:
    browser = site.browser()
    for nonsense in (b"\n", b"[]\n", b'{"ok": "yes"}\n', b"true\n", b'{"account": "alice"}\n'):
        site.pam.raw_reply = nonsense
        page = await browser.get("/hub/login")
        reply = await browser.press(page, "sign-in", **GOOD)
        assert reply.status_code in (403, 503), nonsense
    assert await site.sessions() == []


async def test_a_huge_user_name_is_refused_without_asking(site: Site) -> None:
    browser = site.browser()
    page = await browser.get("/hub/login")
    reply = await browser.press(page, "sign-in", username="x" * 60_000, password="y")
    assert reply.status_code == 403
    assert len(reply.text) < 5_000
    assert site.pam.asked == []


async def test_the_page_says_that_nobody_is_allowed_yet() -> None:
    async with open_site(auth={"allowed_users": []}) as site:
        assert has_element(await site.browser().get("/hub/login"), "nobody-allowed")
        await site.add_user("alice", console=True)
        assert not has_element(await site.browser().get("/hub/login"), "nobody-allowed")


async def test_passwords_can_be_switched_off() -> None:
    async with open_site(auth={"authenticator": "none"}) as site:
        browser = site.browser()
        page = await browser.get("/hub/login")
        assert not has_element(page, "password")
        token = page.cookies["_xsrf"]
        reply = await browser.post("/hub/login", GOOD | {"_xsrf": token})
        assert reply.status_code == 403
        assert site.pam.asked == []


async def test_a_session_ends_after_its_days(site: Site) -> None:
    browser = await site.signed_in("alice")
    site.clock.advance(14 * 86400 - 60)
    assert (await browser.get("/hub/home")).status_code == 200
    site.clock.advance(120)
    assert (await browser.get("/hub/home")).is_redirect


async def test_who_is_signed_in_goes_past_the_form_to_next(site: Site) -> None:
    browser = await site.signed_in("alice")
    reply = await browser.get("/hub/login?next=/hub/home")
    assert (reply.status_code, reply.headers["location"]) == (302, "/hub/home")
    reply = await browser.get("/hub/login?next=//evil.example/")
    assert reply.headers["location"] == "/hub/spawn"


async def test_an_expired_password_is_told_apart_from_a_wrong_one(site: Site) -> None:
    browser = site.browser()
    site.pam.raw_reply = b'{"ok": false, "account": "", "reason": "password_expired"}\n'
    reply = await browser.press(await browser.get("/hub/login"), "sign-in", **GOOD)
    assert reply.status_code == 403
    assert "passwd" in reply.text


@pytest.mark.parametrize("reason", ["busy", "timeout", "unavailable"])
async def test_a_password_that_was_not_checked_is_not_called_wrong(site: Site, reason: str) -> None:
    site.pam.raw_reply = b'{"ok": false, "account": "", "reason": "%s"}\n' % reason.encode()
    browser = site.browser()
    reply = await browser.press(await browser.get("/hub/login"), "sign-in", **GOOD)
    assert reply.status_code == 503
    assert await site.all(LoginAttempt) == []


async def test_a_carrel_pam_that_says_nothing_is_given_up(site: Site) -> None:
    site.pam.silent = True
    with pytest.raises(UnavailableError):
        await check_password(site.pam.address, "alice", "pw", seconds=0.1)


@pytest.mark.parametrize("password", ["", "a\0b", "x" * 1025])
async def test_what_is_no_password_is_not_asked_about(site: Site, password: str) -> None:
    assert not (await check_password(site.pam.address, "alice", password)).ok
    assert site.pam.asked == []


async def test_a_second_sign_in_beside_the_hubs_is_told_and_swept_away(site: Site) -> None:
    """A page of somebody's server can set cookies of our names, for paths of its choice."""
    browser = await site.signed_in("alice")
    for path in ("/", "/hub", "/hub/login"):
        browser.client.cookies.set("jupyterhub-hub-login", "x", domain="hub.test", path=path)
    assert (await browser.get("/hub/home")).is_redirect
    page = await browser.get("/hub/login")
    assert "two sign-ins" in page.text
    assert (await browser.get("/hub/home")).status_code == 200, "what is left is ours"


async def test_signing_in_tells_the_agents_that_a_start_is_likely(site: Site) -> None:
    asked: list[str] = []
    agents = AgentClients(
        site.hub.settings.agents, connect=lambda _peer: _recorder(asked, "http://agent")
    )
    app = build_app(replace(site.hub, agents=agents))
    site.app = app
    site.pam.passwords["alice"] = GOOD["password"]
    browser = site.browser()
    reply = await browser.press(await browser.get("/hub/login"), "sign-in", **GOOD)
    assert reply.status_code == 302
    with anyio.fail_after(60):
        while not asked:  # noqa: ASYNC110 - the hint goes out beside the answer
            await anyio.sleep(0.005)
    assert asked == ["POST /agent/v1/warm"]
    await agents.close()


def _recorder(asked: list[str], base_url: str) -> httpx.AsyncClient:
    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(f"{request.method} {request.url.path}")
        return httpx.Response(202, json={})

    return httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url=base_url)

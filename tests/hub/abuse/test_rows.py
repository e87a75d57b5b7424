"""What strangers and members can have tables grow by, and by how much."""

from datetime import timedelta

import pytest
from hub.oauth.test_redeem import prepared, redemption
from hub.users.conftest import NewPerson
from hub.web.site import Site, open_site
from hub.world import World
from sqlmodel import select

from carrel_hub.auth import sessions
from carrel_hub.auth.rate_limit import counted_as
from carrel_hub.auth.tokens import issue_token
from carrel_hub.db.models import BrowserSession, LoginAttempt, OAuthCode, ShareCode, Token, User
from carrel_hub.events import retention
from carrel_hub.oauth import codes
from carrel_hub.shares import codes as share_codes
from carrel_hub.tokens import granting
from carrel_hub.tokens.bodies import MOST_SCOPES


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("unknown", "unknown"),
    ],
)
def test_attempts_are_counted_by_what_somebody_has(address: str, counted: str) -> None:
    assert counted_as(address) == counted


async def test_one_guesser_with_many_addresses_is_one_guesser() -> None:
    async with open_site(auth={"max_failures": 3}) as site:
        statuses = []
        for number in range(5):
            browser = site.browser(f"2001:db8::{number:x}")
            page = await browser.get("/hub/login")
            reply = await browser.press(page, "sign-in", username=f"user{number}", password="x")
            statuses.append(reply.status_code)
        assert statuses == [403, 403, 403, 429, 429]
        assert len(await site.all(LoginAttempt)) == 3
        neighbour = site.browser("2001:db8:0:1::1")
        site.pam.passwords["alice"] = "right"
        page = await neighbour.get("/hub/login")
        reply = await neighbour.press(page, "sign-in", username="alice", password="right")
        assert reply.status_code == 302


async def test_somebody_is_signed_in_in_so_many_browsers_at_most(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "MOST_SESSIONS", 3)
    first, *others = [await site.signed_in("alice") for _ in range(3)]
    bob = await site.signed_in("bob")
    last = await site.signed_in("alice")
    assert len(await site.all(BrowserSession)) == 4
    assert (await first.get("/hub/home")).status_code == 302
    for browser in (*others, bob, last):
        assert (await browser.get("/hub/home")).status_code == 200
    assert any("session_hash" in str(change) for change in await site.changes())


async def test_tokens_that_are_asked_for_have_an_end(
    live: World, new_person: NewPerson, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(granting, "MOST_TOKENS", 3)
    bob = await new_person("bob")
    made = [await bob.post("/users/bob/tokens", json={"expires_in": 60}) for _ in range(3)]
    assert [reply.status_code for reply in made] == [201, 201, 400]
    assert "revoke one" in made[2].json()["message"]
    assert (await bob.delete(f"/users/bob/tokens/{made[0].json()['id']}")).status_code == 204
    assert (await bob.post("/users/bob/tokens")).status_code == 201


async def test_a_token_has_so_many_scopes_at_most(new_person: NewPerson) -> None:
    bob = await new_person("bob")
    scopes = [f"access:servers!server=bob/s{number}" for number in range(MOST_SCOPES + 1)]
    assert (await bob.post("/users/bob/tokens", json={"scopes": scopes})).status_code == 400
    assert (await bob.post("/users/bob/tokens", json={"scopes": scopes[1:]})).status_code == 201


async def test_the_page_says_that_there_are_tokens_enough(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(granting, "MOST_TOKENS", 0)
    browser = await site.signed_in("alice")
    reply = await browser.press(await browser.get("/hub/token"), "make-token")
    assert reply.status_code == 400
    assert "revoke one first" in reply.text


async def test_a_server_has_so_many_links_at_most(
    live: World, new_person: NewPerson, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(share_codes, "MOST_CODES", 2)
    ada = await new_person("ada", admin=True)
    made = [await ada.post("/share-codes/ada/") for _ in range(3)]
    assert [reply.status_code for reply in made] == [200, 200, 400]
    async with live.hub.database.read() as session:
        assert len((await session.exec(select(ShareCode))).all()) == 2


async def test_a_browser_has_so_many_codes_at_most(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codes, "MOST_CODES", 3)
    browser, server, proxy = await prepared(site)
    all_of_them = []
    for _ in range(5):
        site.clock.advance(1)
        all_of_them.append(await redemption(browser, server))
    assert len(await site.all(OAuthCode)) <= 3
    assert (await proxy.redeem(all_of_them[0])).status_code == 403
    assert (await proxy.redeem(all_of_them[-1])).status_code == 200


async def test_a_browser_has_so_many_tokens_of_a_client_at_most(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codes, "MOST_OF_A_BROWSER", 2)
    browser, server, proxy = await prepared(site)
    for _ in range(4):
        assert (await proxy.redeem(await redemption(browser, server))).status_code == 200
    assert len(await site.tokens()) == 2
    ended = [change for change in await site.changes() if "token_hash" in str(change)]
    assert len(ended) == 2


async def test_a_code_that_was_made_up_begins_no_transaction_that_writes(site: Site) -> None:
    browser, server, proxy = await prepared(site)
    good = await redemption(browser, server)
    before = site.hub.database.writes
    assert (await proxy.redeem(good | {"code": "made-up"})).status_code == 403
    assert site.hub.database.writes == before


async def test_what_has_expired_goes_though_nobody_signs_in(live: World) -> None:
    now = live.hub.clock.now()
    async with live.hub.database.write() as session:
        user = User(name="bob", created=now)
        session.add(user)
        await session.flush()
        for days in (-2, 2):
            await issue_token(session, live.hub, user, actor="hub", expires_in=timedelta(days=days))
    await retention.prune(live.hub)
    async with live.hub.database.read() as session:
        [left] = (await session.exec(select(Token))).all()
    assert left.expires_at is not None
    assert left.expires_at > now

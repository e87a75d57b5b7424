"""Redeeming a code, once, by the proxy, for the browser that asked."""

import asyncio
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from hub.oauth.test_authorize import GOOD, VERIFIER, url
from hub.web.site import Browser, Site

from carrel_hub.db.models import Server
from carrel_shared.service_auth import ServiceGate, service_headers
from carrel_shared.wire.access import RedeemedToken, Verdict

KEYS = {"proxy:edge": "p" * 40, "agent:local": "a" * 40, "console": "c" * 40}


class Proxy:
    """Calls the hub as the proxy does."""

    def __init__(self, site: Site, caller: str = "proxy:edge") -> None:
        gate = ServiceGate(site.app, keys=KEYS, service="hub")
        self._client = httpx.AsyncClient(
            transport=httpx.ASGITransport(gate),
            base_url="http://hub",
            headers=service_headers(KEYS[caller]),
        )
        site.clients.append(self._client)

    async def redeem(self, body: dict[str, Any]) -> httpx.Response:
        return await self._client.post("/internal/v1/access/redeem", json=body)

    async def verdict(self, token_hash: str, server_id: str) -> Verdict:
        body = {"token_hash": token_hash, "server_id": server_id}
        reply = await self._client.post("/internal/v1/access/verdict", json=body)
        assert reply.status_code == 200
        return Verdict.model_validate_json(reply.content)


async def redemption(browser: Browser, server: Server) -> dict[str, Any]:
    """Return what redeems a fresh code."""
    reply = await browser.get(url())
    code = parse_qs(urlsplit(reply.headers["location"]).query)["code"][0]
    return {
        "client_id": GOOD["client_id"],
        "server_id": server.id,
        "redirect_uri": GOOD["redirect_uri"],
        "code": code,
        "code_verifier": VERIFIER,
        "session_id": browser.client.cookies["jupyterhub-session-id"],
    }


async def prepared(site: Site) -> tuple[Browser, Server, Proxy]:
    browser = await site.signed_in("alice")
    return browser, await site.add_server("alice"), Proxy(site)


async def test_a_code_becomes_a_token_for_that_server_and_session(site: Site) -> None:
    browser, server, proxy = await prepared(site)
    reply = await proxy.redeem(await redemption(browser, server))
    assert reply.status_code == 200, reply.text
    got = RedeemedToken.model_validate_json(reply.content)
    [row], [session] = await site.tokens(), await site.sessions()
    assert (row.client_id, row.server_id) == (GOOD["client_id"], server.id)
    assert row.session_hash == session.session_hash == got.verdict.session_hash
    assert got.expires_at == session.expires_at
    assert got.token not in reply.request.content.decode()
    assert got.verdict.allow
    assert got.verdict.visitor is not None
    assert got.verdict.visitor.name == "alice"
    assert await proxy.verdict(row.token_hash, server.id) == got.verdict


async def test_a_token_ends_with_its_session(site: Site) -> None:
    browser, server, proxy = await prepared(site)
    site.clock.advance(13.5 * 86400)
    await proxy.redeem(await redemption(browser, server))
    [row], [session] = await site.tokens(), await site.sessions()
    assert row.expires_at == session.expires_at


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("client_id", "jupyterhub-user-bob"),
        ("server_id", "0" * 12),
        ("redirect_uri", "/user/bob/oauth_callback"),
        ("code_verifier", "w" * 43),
        ("code_verifier", ""),
        ("code_verifier", "v" * 42 + "é"),
        ("session_id", "0" * 32),
        ("session_id", ""),
        ("code", "unknown"),
        ("code", "x" * 5000),
    ],
)
async def test_what_does_not_fit_is_refused_and_uses_the_code_up(
    site: Site, change: str, value: str
) -> None:
    browser, server, proxy = await prepared(site)
    good = await redemption(browser, server)
    reply = await proxy.redeem(good | {change: value})
    assert reply.status_code == 403
    assert good["code"] not in reply.text
    assert await site.tokens() == []
    if change != "code":
        assert (await proxy.redeem(good)).status_code == 403
        assert await site.tokens() == []


async def test_a_code_of_anothers_server_is_refused(site: Site) -> None:
    browser, server, proxy = await prepared(site)
    await site.add_user("bob")
    bobs = await site.add_server("bob")
    good = await redemption(browser, server)
    theirs = {
        "client_id": bobs.client_id,
        "server_id": bobs.id,
        "redirect_uri": "/user/bob/oauth_callback",
    }
    assert (await proxy.redeem(good | theirs)).status_code == 403


async def test_a_code_lasts_five_minutes(site: Site) -> None:
    browser, server, proxy = await prepared(site)
    good = await redemption(browser, server)
    site.clock.advance(301)
    assert (await proxy.redeem(good)).status_code == 403


async def test_signing_out_takes_codes_along(site: Site) -> None:
    browser, server, proxy = await prepared(site)
    good = await redemption(browser, server)
    await browser.get("/hub/logout")
    assert (await proxy.redeem(good)).status_code == 403
    assert await site.tokens() == []


async def test_a_right_that_was_taken_away_meanwhile_is_gone(site: Site) -> None:
    browser, server, proxy = await prepared(site)
    good = await redemption(browser, server)
    await site.add_user("alice", disabled=True)
    assert (await proxy.redeem(good)).status_code == 403
    assert await site.tokens() == []


async def test_of_a_hundred_redemptions_at_once_one_succeeds_and_its_token_ends(site: Site) -> None:
    browser, server, proxy = await prepared(site)
    good = await redemption(browser, server)
    replies = await asyncio.gather(*(proxy.redeem(good) for _ in range(100)))
    statuses = sorted(reply.status_code for reply in replies)
    assert statuses == [200] + [403] * 99
    assert await site.tokens() == [], "a code that comes twice was stolen"
    told = [change["revocation"]["token_hash"] for change in await site.changes()]
    assert len(told) == 1
    [event] = await site.events("token.revoked")
    assert "second time" in event.message


async def test_a_replay_leaves_other_tokens_alone(site: Site) -> None:
    browser, server, proxy = await prepared(site)
    other = await site.signed_in("alice")
    for who in (browser, other):
        assert (await proxy.redeem(await redemption(who, server))).status_code == 200
    site.clock.advance(1)
    good = await redemption(browser, server)
    assert (await proxy.redeem(good)).status_code == 200
    assert len(await site.tokens()) == 3
    assert (await proxy.redeem(good)).status_code == 403
    assert len(await site.tokens()) == 2


@pytest.mark.parametrize("caller", ["agent:local", "console"])
async def test_only_proxies_may_ask(site: Site, caller: str) -> None:
    browser, server, _ = await prepared(site)
    good = await redemption(browser, server)
    assert (await Proxy(site, caller).redeem(good)).status_code == 403
    assert (await Proxy(site).redeem(good)).status_code == 200, "and the code is still good"


async def test_verdicts(site: Site) -> None:
    browser, server, proxy = await prepared(site)
    await site.add_user("bob")
    bobs = await site.add_server("bob")
    await proxy.redeem(await redemption(browser, server))
    [row] = await site.tokens()

    verdict = await proxy.verdict(row.token_hash, server.id)
    assert (verdict.known, verdict.allow) == (True, True)
    verdict = await proxy.verdict(row.token_hash, bobs.id)
    assert (verdict.known, verdict.allow) == (True, False)
    verdict = await proxy.verdict(row.token_hash, "0" * 12)
    assert (verdict.known, verdict.allow) == (True, False)
    verdict = await proxy.verdict("0" * 64, server.id)
    assert (verdict.known, verdict.allow, verdict.visitor) == (False, False, None)

    await site.add_user("alice", disabled=True)
    verdict = await proxy.verdict(row.token_hash, server.id)
    assert (verdict.known, verdict.allow, verdict.visitor) == (True, False, None)
    await site.add_user("alice", disabled=False)
    site.clock.advance(15 * 86400)
    verdict = await proxy.verdict(row.token_hash, server.id)
    assert (verdict.known, verdict.allow) == (True, False)


async def test_an_administrators_token_opens_every_server_until_they_are_none(site: Site) -> None:
    from hub.auth.test_subjects import new_token

    from carrel_hub.auth.digest import digest

    _, server, proxy = await prepared(site)
    await site.add_user("bob", admin=True)
    token = digest(await new_token(site, "bob"))
    assert (await proxy.verdict(token, server.id)).allow
    bob = await site.world.user("bob")
    async with site.hub.database.write() as db:
        bob.admin = False
        db.add(bob)
    assert not (await proxy.verdict(token, server.id)).allow

"""A browser signs in to a server: there and back, once or twice, with what can go wrong."""

import asyncio
import base64
import json
from pathlib import Path

import pytest
from proxy.hub import FakeHub, allowed
from proxy.running import SERVER_ID, Running, guarded_route, open_proxy
from proxy.signing_in import NAVIGATION, SESSION, begin, cookie_pair, finish
from proxy.wire import Upstream

from carrel_shared.clock import SystemClock
from carrel_shared.wire.access import RedeemedToken

COOKIE = f"carrel-session-{SERVER_ID}"


@pytest.fixture(autouse=True)
def _guarded(running: Running, upstream: Upstream, hub: FakeHub) -> None:
    running.route(guarded_route(upstream.target))
    hub.know("good", SERVER_ID, allowed("alice", session="5" * 64))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_only_a_get_is_sent_to_sign_in(method: str, running: Running) -> None:
    async with running.client() as client:
        client.get("/user/alice/api", *NAVIGATION, "Content-Length: 0", method=method)
        assert (await client.response()).status == 403


async def test_a_browser_signs_in_and_comes_back_where_it_wanted(
    running: Running, upstream: Upstream, hub: FakeHub
) -> None:
    async with running.client() as client:
        begun, query = await begin(client, "/user/alice/lab/tree/a%20b?x=1&y")
        assert query["client_id"] == f"jupyterhub-user-{SERVER_ID}"
        assert query["redirect_uri"] == "/user/alice/oauth_callback"
        assert query["response_type"] == "code"
        assert query["code_challenge_method"] == "S256"
        state_cookie = begun.all("set-cookie")[0]
        assert "Path=/user/alice/oauth_callback" in state_cookie
        assert "HttpOnly" in state_cookie
        assert "Max-Age=600" in state_cookie

        done = await finish(client, hub, begun, query["state"])
        assert (done.status, done.one("location")) == (302, "/user/alice/lab/tree/a%20b?x=1&y")
        (redeemed,) = hub.called("/redeem")
        assert redeemed["session_id"] == "5e55"
        assert redeemed["redirect_uri"] == "/user/alice/oauth_callback"
        cleared, session = done.all("set-cookie")
        assert "Max-Age=0" in cleared
        assert cookie_pair(session) == f"{COOKIE}=fresh"
        assert {"Path=/user/alice/", "HttpOnly", "SameSite=Lax"} <= set(session.split("; "))
        assert "Secure" not in session

        reply = await client.ask("/user/alice/lab", f"Cookie: {COOKIE}=fresh")
        assert reply.status == 200
    assert hub.called("/verdict") == []


async def test_several_tabs_may_sign_in_at_once(running: Running, hub: FakeHub) -> None:
    async with running.client() as client:
        one, first = await begin(client, "/user/alice/one")
        _, second = await begin(client, "/user/alice/two")
        assert first["state"] != second["state"]
        assert (await finish(client, hub, one, first["state"])).one("location") == "/user/alice/one"


@pytest.mark.parametrize("query", ["", "?state=x", "?code=the-code", "?state=&code=the-code"])
async def test_a_callback_that_nobody_waits_for_changes_nothing(
    query: str, running: Running, hub: FakeHub
) -> None:
    async with running.client() as client:
        begun, _ = await begin(client, "/user/alice/")
        cookie = cookie_pair(begun.all("set-cookie")[0])
        reply = await client.ask(
            f"/user/alice/oauth_callback{query}", *NAVIGATION, f"Cookie: {SESSION}; {cookie}"
        )
        assert reply.status == 400
    assert hub.called("/redeem") == []


async def test_a_code_without_the_browsers_session_is_not_redeemed(
    running: Running, hub: FakeHub
) -> None:
    async with running.client() as client:
        begun, query = await begin(client, "/user/alice/")
        cookie = cookie_pair(begun.all("set-cookie")[0])
        for session in ("", f"{SESSION}; {SESSION}; "):
            reply = await client.ask(
                f"/user/alice/oauth_callback?code=c&state={query['state']}",
                f"Cookie: {session}{cookie}",
            )
            assert reply.status == 403
    assert hub.called("/redeem") == []


async def test_a_refused_code_is_a_page_and_not_another_round(
    running: Running, hub: FakeHub
) -> None:
    async with running.client() as client:
        begun, query = await begin(client, "/user/alice/")
        cookie = cookie_pair(begun.all("set-cookie")[0])
        reply = await client.ask(
            f"/user/alice/oauth_callback?code=stolen&state={query['state']}",
            f"Cookie: {SESSION}; {cookie}",
        )
        assert reply.status == 403
        assert b'href="/user/alice/"' in reply.body


async def test_a_browser_that_keeps_no_cookie_is_told_so(running: Running) -> None:
    cookie = ""
    async with running.client() as client:
        for _ in range(4):
            begun, _ = await begin(client, "/user/alice/", f"Cookie: {cookie}")
            cookie = cookie_pair(begun.all("set-cookie")[1])
        reply = await client.ask("/user/alice/", *NAVIGATION, f"Cookie: {cookie}")
        assert reply.status == 403
        assert b"cookies" in reply.body


async def test_the_way_back_stays_below_the_prefix(running: Running, hub: FakeHub) -> None:
    """The cookie with it can be tossed by a neighbour's page."""
    async with running.client() as client:
        begun, query = await begin(client, "/user/alice/lab")
        name, _, value = cookie_pair(begun.all("set-cookie")[0]).partition("=")
        state, verifier, _ = json.loads(base64.urlsafe_b64decode(value + "=="))
        for where in (
            "//evil.test/",
            "/user/bob/",
            "/user/alice/\\..",
            "/user/alice/../bob/",
            "/user/alice/a/%2e%2E/../../bob/lab?x=1",
            "https://evil.test",
            "x\r\ny",
        ):
            hub.codes["c"] = RedeemedToken(
                token="t", expires_at=SystemClock().now(), verdict=allowed()
            )
            tossed = base64.urlsafe_b64encode(json.dumps([state, verifier, where]).encode())
            reply = await client.ask(
                f"/user/alice/oauth_callback?code=c&state={query['state']}",
                f"Cookie: {SESSION}; {name}={tossed.decode().rstrip('=')}",
            )
            assert reply.one("location") == "/user/alice/"


async def test_signing_out_takes_the_cookie_and_goes_to_the_hub(
    running: Running, upstream: Upstream
) -> None:
    async with running.client() as client:
        reply = await client.ask("/user/alice/logout", f"Cookie: {COOKIE}=good")
        assert (reply.status, reply.one("location")) == (302, "/hub/logout")
        assert f"{COOKIE}=; Path=/user/alice/; Max-Age=0" in reply.all("set-cookie")[0]
    assert upstream.requests == []


async def test_a_sign_in_goes_on_at_another_proxy(
    running: Running, short_dir: Path, upstream: Upstream, hub: FakeHub
) -> None:
    """Or at the same one, started anew: all of it is in the browser's cookie."""
    async with running.client() as client:
        begun, query = await begin(client, "/user/alice/lab?x=1")
    (short_dir / "other").mkdir()
    async with open_proxy(short_dir / "other", hub) as other:
        other.route(guarded_route(upstream.target))
        async with other.client() as client:
            done = await finish(client, hub, begun, query["state"])
            assert (done.status, done.one("location")) == (302, "/user/alice/lab?x=1")


async def test_a_callback_that_is_reloaded_gets_its_answer_again(
    running: Running, hub: FakeHub
) -> None:
    """The first answer was lost on its way. The hub would take a second try for a theft."""
    async with running.client() as client:
        begun, query = await begin(client, "/user/alice/lab")
        first = await finish(client, hub, begun, query["state"])
        again = await finish(client, hub, begun, query["state"])
    for reply in (first, again):
        assert (reply.status, reply.one("location")) == (302, "/user/alice/lab")
        assert reply.all("set-cookie")[1].startswith(f"{COOKIE}=fresh;")
    assert len(hub.called("/redeem")) == 1


async def test_two_callbacks_at_once_redeem_once(running: Running, hub: FakeHub) -> None:
    async with running.client() as one, running.client() as two:
        begun, query = await begin(one, "/user/alice/lab")
        replies = await asyncio.gather(
            finish(one, hub, begun, query["state"]), finish(two, hub, begun, query["state"])
        )
    assert [reply.status for reply in replies] == [302, 302]
    assert len(hub.called("/redeem")) == 1


async def test_a_code_with_another_browsers_session_is_another_question(
    running: Running, hub: FakeHub
) -> None:
    async with running.client() as client:
        begun, query = await begin(client, "/user/alice/lab")
        await finish(client, hub, begun, query["state"])
        cookie = cookie_pair(begun.all("set-cookie")[0])
        reply = await client.ask(
            f"/user/alice/oauth_callback?code=the-code&state={query['state']}",
            *NAVIGATION,
            f"Cookie: jupyterhub-session-id=another; {cookie}",
        )
    assert reply.status == 403


async def test_going_back_to_a_finished_callback_goes_on_to_the_server(
    running: Running, hub: FakeHub
) -> None:
    async with running.client() as client:
        reply = await client.ask(
            "/user/alice/oauth_callback?code=old&state=01d5", *NAVIGATION, f"Cookie: {COOKIE}=good"
        )
    assert (reply.status, reply.one("location")) == (302, "/user/alice/")
    assert hub.called("/redeem") == []


async def test_nobody_is_sent_to_a_hub_that_is_away(running: Running, hub: FakeHub) -> None:
    hub.away = True
    async with running.client() as client:
        page = await client.ask("/user/alice/lab", *NAVIGATION)
        assert (page.status, page.one("content-type")) == (503, "text/html; charset=utf-8")
        assert page.one("retry-after")
        assert page.all("set-cookie") == []
        hub.away = False
        await begin(client, "/user/alice/lab")


async def test_a_form_that_comes_too_late_is_shown_the_way(running: Running) -> None:
    """Somebody was signed out while they filled it in. What they sent cannot be kept."""
    async with running.client() as client:
        client.get("/user/alice/form", *NAVIGATION, "Content-Length: 3", method="POST")
        client.send(b"a=1")
        page = await client.response()
    assert page.status == 403
    assert b'href="/user/alice/"' in page.body

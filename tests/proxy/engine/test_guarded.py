"""A guarded route: who passes, what goes on with whom, and what becomes of everybody else."""

import asyncio
import base64
import json
import os
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from proxy.hub import FakeHub, allowed
from proxy.running import SECRET, SERVER_ID, Running, guarded_route, open_proxy
from proxy.wire import Client, Message, Upstream, eventually, ok, open_upstream, read_request

from carrel_proxy.core.access import token_hash
from carrel_shared.clock import ManualClock, SystemClock
from carrel_shared.wire.access import RedeemedToken, Verdict
from carrel_shared.wire.routes import Revocation, Revoke, RouteChanges

NAVIGATION = ("Sec-Fetch-Mode: navigate", "Accept: text/html")
COOKIE = f"carrel-session-{SERVER_ID}"
SESSION = "jupyterhub-session-id=5e55"


@pytest.fixture(autouse=True)
def _guarded(running: Running, upstream: Upstream, hub: FakeHub) -> None:
    running.route(guarded_route(upstream.target))
    hub.know("good", SERVER_ID, allowed("alice", session="5" * 64))


def revoke(running: Running, revocation: Revocation) -> None:
    running.number += 1
    running.proxy.table.change(
        RouteChanges(
            epoch="e",
            base=running.number - 1,
            number=running.number,
            changes=[Revoke(revocation=revocation)],
        )
    )


async def test_a_cookie_passes_and_tells_the_server_who_it_is(
    running: Running, upstream: Upstream, hub: FakeHub
) -> None:
    async with running.client() as client:
        for _ in range(3):
            reply = await client.ask("/user/alice/lab", f"Cookie: a=1; {COOKIE}=good; _xsrf=2")
            assert reply.status == 200
    request = upstream.requests[0]
    assert request.one("x-carrel-secret") == SECRET
    assert json.loads(request.one("x-carrel-user") or "") == {
        "name": "alice",
        "display_name": "alice ü",
        "admin": False,
    }
    assert request.one("x-carrel-auth") == "cookie"
    assert request.one("cookie") == "a=1; _xsrf=2"
    assert len(hub.called("/verdict")) == 1
    assert "good" not in json.dumps(hub.calls)


@pytest.mark.parametrize("scheme", ["token", "Bearer", "bearer"])
async def test_a_token_of_the_hubs_passes_and_is_taken_off(
    scheme: str, running: Running, upstream: Upstream
) -> None:
    async with running.client() as client:
        assert (await client.ask("/user/alice/api", f"Authorization: {scheme} good")).status == 200
    request = upstream.requests[0]
    assert request.one("x-carrel-auth") == "token"
    assert request.one("authorization") is None


async def test_an_applications_own_token_is_left_alone(
    running: Running, upstream: Upstream
) -> None:
    async with running.client() as client:
        reply = await client.ask(
            "/user/alice/proxy/8000/", "Authorization: Bearer its-own", f"Cookie: {COOKIE}=good"
        )
        assert reply.status == 200
    assert upstream.requests[0].one("authorization") == "Bearer its-own"
    assert upstream.requests[0].one("x-carrel-auth") == "cookie"


async def test_a_token_for_another_server_is_refused(
    running: Running, upstream: Upstream, hub: FakeHub
) -> None:
    hub.know("others", SERVER_ID, Verdict(known=True, allow=False))
    async with running.client() as client:
        reply = await client.ask(
            "/user/alice/api", "Authorization: token others", f"Cookie: {COOKIE}=good"
        )
        assert reply.status == 403
    assert upstream.requests == []


@pytest.mark.parametrize(
    "fields",
    [
        ("Accept: */*",),
        ("Sec-Fetch-Mode: cors", "Accept: text/html"),
        ("Sec-Fetch-Mode: no-cors", "Accept: text/html"),
        (f"Cookie: {COOKIE}=bad",),
        (f"Cookie: {COOKIE}=good; {COOKIE}=good",),
        (f"Cookie: {COOKIE}=good; {COOKIE}=tossed",),
        ("Authorization: token bad",),
        ("Authorization: Basic Z29vZDpnb29k",),
        ("Authorization: token good", "Authorization: token good"),
        (f"Cookie: x{COOKIE}=good",),
        (f'Cookie: "{COOKIE}=good',),
    ],
)
async def test_whoever_shows_nothing_good_gets_json(
    fields: tuple[str, ...], running: Running, upstream: Upstream
) -> None:
    async with running.client() as client:
        reply = await client.ask("/user/alice/api/kernels?token=good", *fields)
        assert reply.status == 403
        assert json.loads(reply.body)["status"] == 403
        assert reply.all("set-cookie") == []
    assert upstream.requests == []


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_only_a_get_is_sent_to_sign_in(method: str, running: Running) -> None:
    async with running.client() as client:
        client.get("/user/alice/api", *NAVIGATION, "Content-Length: 0", method=method)
        assert (await client.response()).status == 403


async def begin(client: Client, target: str, *fields: str) -> tuple[Message, dict[str, str]]:
    reply = await client.ask(target, *NAVIGATION, *fields)
    assert reply.status == 302, reply.body
    location = urlsplit(reply.one("location") or "")
    assert location.path == "/hub/api/oauth2/authorize"
    return reply, {name: values[0] for name, values in parse_qs(location.query).items()}


def cookie_pair(set_cookie: str) -> str:
    return set_cookie.split(";")[0]


async def finish(client: Client, hub: FakeHub, begun: Message, state: str) -> Message:
    hub.codes["the-code"] = RedeemedToken(
        token="fresh",
        expires_at=SystemClock().now() + timedelta(hours=1),
        verdict=allowed("alice"),
    )
    cookie = cookie_pair(begun.all("set-cookie")[0])
    return await client.ask(
        f"/user/alice/oauth_callback?code=the-code&state={state}",
        *NAVIGATION,
        f"Cookie: {SESSION}; {cookie}",
    )


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


async def test_without_the_hub_nobody_new_gets_in(running: Running, hub: FakeHub) -> None:
    hub.away = True
    async with running.client() as client:
        page = await client.ask("/user/alice/", *NAVIGATION, f"Cookie: {COOKIE}=good")
        assert page.status == 503
        assert page.one("retry-after")
        api = await client.ask("/user/alice/api", f"Cookie: {COOKIE}=good")
        assert (api.status, api.one("content-type")) == (503, "application/json")


async def test_without_the_hub_whoever_is_in_stays_in_for_a_while(
    short_dir: Path, hub: FakeHub, upstream: Upstream
) -> None:
    clock = ManualClock(SystemClock().now())
    (short_dir / "p").mkdir()
    async with open_proxy(short_dir, hub, clock=clock, state_dir=short_dir / "p") as running:
        running.route(guarded_route(upstream.target))
        async with running.client() as client:
            assert (await client.ask("/user/alice/", f"Cookie: {COOKIE}=good")).status == 200
    hub.away = True
    clock.advance(800)
    async with (
        open_proxy(short_dir, hub, clock=clock, state_dir=short_dir / "p") as running,
        running.client() as client,
    ):
        assert (await client.ask("/user/alice/", f"Cookie: {COOKIE}=good")).status == 200
        clock.advance(101)
        assert (await client.ask("/user/alice/", f"Cookie: {COOKIE}=good")).status == 503
        hub.away = False
        assert (await client.ask("/user/alice/", f"Cookie: {COOKIE}=good")).status == 200


@pytest.mark.parametrize(
    "revocation",
    [
        Revocation(user="alice"),
        Revocation(session_hash="5" * 64),
        Revocation(server_id=SERVER_ID),
        Revocation(token_hash=token_hash(b"good")),
    ],
    ids=["user", "session", "server", "token"],
)
async def test_a_revocation_ends_what_is_open_and_asks_anew(
    revocation: Revocation, running: Running, upstream: Upstream, hub: FakeHub
) -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        await reader.read()

    upstream.script = endless
    async with running.client() as client:
        client.get("/user/alice/events", f"Cookie: {COOKIE}=good")
        assert (await client.head()).status == 200
        hub.verdicts.clear()
        revoke(running, revocation)
        await client.rest()
    async with running.client() as client:
        assert (await client.ask("/user/alice/", f"Cookie: {COOKIE}=good")).status == 403


async def test_a_revocation_of_others_disturbs_nobody(running: Running, hub: FakeHub) -> None:
    async with running.client() as client:
        assert (await client.ask("/user/alice/", f"Cookie: {COOKIE}=good")).status == 200
        revoke(running, Revocation(user="bob"))
        hub.away = True
        assert (await client.ask("/user/alice/", f"Cookie: {COOKIE}=good")).status == 200


async def test_after_a_whole_table_every_verdict_is_asked_for_again(
    running: Running, upstream: Upstream, hub: FakeHub
) -> None:
    async with running.client() as client:
        assert (await client.ask("/user/alice/", f"Cookie: {COOKIE}=good")).status == 200
        hub.verdicts.clear()
        running.route(guarded_route(upstream.target))
        assert (await client.ask("/user/alice/", f"Cookie: {COOKIE}=good")).status == 403


async def test_a_flood_of_requests_asks_the_hub_once(
    running: Running, upstream: Upstream, hub: FakeHub
) -> None:
    async def ask() -> int:
        async with running.client() as client:
            return (await client.ask("/user/alice/", f"Cookie: {COOKIE}=good")).status

    assert set(await asyncio.gather(*(ask() for _ in range(20)))) == {200}
    assert len(hub.called("/verdict")) == 1


async def test_a_body_waits_while_the_hub_is_asked(running: Running, upstream: Upstream) -> None:
    upstream.respond = lambda request: ok(request.body)
    body = b"z" * 300_000
    async with running.client() as client:
        client.get(
            "/user/alice/x", f"Cookie: {COOKIE}=good", f"Content-Length: {len(body)}", method="PUT"
        )
        client.send(body)
        assert (await client.response()).body == body


async def test_a_server_that_is_away_can_be_started(running: Running, short_dir: Path) -> None:
    running.route(guarded_route(f"unix:{short_dir}/gone.sock", "/user/al%40ice/lab1/"))
    async with running.client() as client:
        page = await client.ask("/user/al%40ice/lab1/x", *NAVIGATION, f"Cookie: {COOKIE}=good")
        assert page.status == 503
        assert b'href="/hub/spawn/al%40ice/lab1"' in page.body
        api = await client.ask("/user/al%40ice/lab1/api", f"Cookie: {COOKIE}=good")
        assert (api.status, json.loads(api.body)["status"]) == (503, 503)


@pytest.mark.root
async def test_nothing_is_sent_to_another_account(
    running: Running, short_dir: Path, hub: FakeHub
) -> None:
    async with open_upstream(short_dir / "u.sock") as squatter:
        running.route(guarded_route(squatter.target, peer_uid=54321))
        async with running.client() as client:
            reply = await client.ask("/user/alice/", f"Cookie: {COOKIE}=good")
            assert reply.status == 502
        assert squatter.requests == []
        running.route(guarded_route(squatter.target, peer_uid=os.getuid()))
        async with running.client() as client:
            assert (await client.ask("/user/alice/", f"Cookie: {COOKIE}=good")).status == 200


async def test_a_neighbour_cannot_speak_for_the_origin(
    running: Running, upstream: Upstream
) -> None:
    upstream.respond = lambda _: ok(
        b"",
        "Set-Cookie: session=1; Path=/; Domain=hub.test; HttpOnly",
        "Set-Cookie: own=1; Path=/user/alice/files",
        "Set-Cookie: jupyterhub-session-id=evil; Path=/",
        f"Set-Cookie: __Host-{COOKIE}=evil; Path=/",
        "Set-Cookie: =jupyterhub-session-id=evil",
        "Service-Worker-Allowed: /",
        "Clear-Site-Data: *",
        "Strict-Transport-Security: max-age=1",
        "X-Accel-Redirect: /etc/passwd",
        "X-Carrel-User: x",
        "Content-Security-Policy: sandbox",
    )
    async with running.client() as client:
        reply = await client.ask("/user/alice/", f"Cookie: {COOKIE}=good")
    assert reply.all("set-cookie") == [
        "session=1; HttpOnly; Path=/user/alice/",
        "own=1; Path=/user/alice/files",
    ]
    names = {name.lower() for name, _ in reply.fields}
    assert names == {"set-cookie", "content-security-policy", "content-length"}


async def test_use_is_reported_in_one_batch(
    running: Running, upstream: Upstream, hub: FakeHub
) -> None:
    async with running.client() as client:
        await client.ask("/user/alice/", f"Cookie: {COOKIE}=good")
        await client.ask("/user/alice/")
    hub.away = True
    await running.proxy._activity.report()
    hub.away = False
    await running.proxy._activity.report()
    await running.proxy._activity.report()
    (report,) = hub.called("/activity")
    at = datetime.fromisoformat(report["servers"][SERVER_ID])
    assert abs(SystemClock().now() - at) < timedelta(seconds=10)


async def test_a_token_that_ends_ends_its_connections(
    short_dir: Path, hub: FakeHub, upstream: Upstream
) -> None:
    clock = ManualClock(SystemClock().now())

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        await reader.read()

    upstream.script = endless
    hub.know("short", SERVER_ID, allowed("alice", seconds=100))
    (short_dir / "p").mkdir()
    async with open_proxy(short_dir, hub, clock=clock, state_dir=short_dir / "p") as running:
        running.route(guarded_route(upstream.target))
        async with running.client() as client:
            client.get("/user/alice/events", f"Cookie: {COOKIE}=short")
            assert (await client.head()).status == 200
            hub.verdicts.clear()
            clock.advance(101)
            await client.rest()
        await eventually(lambda: running.proxy.edge.connections == 0)


async def test_one_request_id_goes_to_the_hub_and_to_the_server(
    running: Running, upstream: Upstream, hub: FakeHub
) -> None:
    async with running.client() as client:
        await client.ask("/user/alice/", f"Cookie: {COOKIE}=good")
    assert upstream.requests[0].one("x-request-id") == hub.request_ids[-1]


async def test_a_revocation_on_the_heels_of_a_verdict_is_not_missed(
    running: Running, hub: FakeHub
) -> None:
    """It comes after the hub has answered and before the request goes on."""
    guard = running.proxy.guard
    asked = guard._ask

    async def revoked_meanwhile(key: tuple[str, str]) -> Verdict:
        verdict = await asked(key)
        if hub.verdicts:
            hub.verdicts.clear()
            revoke(running, Revocation(user="alice"))
        return verdict

    guard._ask = revoked_meanwhile  # type: ignore[method-assign]
    async with running.client() as client:
        assert (await client.ask("/user/alice/", f"Cookie: {COOKIE}=good")).status == 403


async def test_a_trusted_peer_says_where_a_request_came_from(
    short_dir: Path, hub: FakeHub, upstream: Upstream
) -> None:
    async with open_proxy(short_dir, hub, trusted_peers=["127.0.0.0/8"]) as running:
        running.route(guarded_route(upstream.target))
        fields = ("X-Forwarded-For: 9.9.9.9", "X-Forwarded-Proto: https", "X-Request-Id: theirs")
        async with running.client() as client:
            begun, _ = await begin(client, "/user/alice/", *fields)
            assert all("Secure" in cookie for cookie in begun.all("set-cookie"))
            await client.ask("/user/alice/", *fields, f"Cookie: {COOKIE}=good", "X-Carrel-User: x")
    (request,) = upstream.requests
    assert request.one("x-forwarded-for") == "9.9.9.9, 127.0.0.1"
    assert request.one("x-forwarded-proto") == "https"
    assert request.one("x-request-id") == "theirs"
    assert json.loads(request.one("x-carrel-user") or "")["name"] == "alice"

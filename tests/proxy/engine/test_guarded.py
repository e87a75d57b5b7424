"""A guarded route: who passes, what goes on with whom, and what becomes of everybody else."""

import asyncio
import json
import os
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from proxy.hub import FakeHub, allowed
from proxy.running import SECRET, SERVER_ID, Running, guarded_route, open_proxy, plain_route
from proxy.signing_in import NAVIGATION, begin
from proxy.wire import Upstream, eventually, ok, open_upstream, read_request

from carrel_proxy.core.access import token_hash
from carrel_shared.clock import ManualClock, SystemClock
from carrel_shared.wire.access import Verdict
from carrel_shared.wire.routes import Revocation, Revoke, RouteChanges

COOKIE = f"carrel-session-{SERVER_ID}"


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


@pytest.mark.parametrize("cookie", ["a=1", f"{COOKIE}=good"])
async def test_two_tokens_are_refused(cookie: str, running: Running, upstream: Upstream) -> None:
    both = ("Authorization: token good", "Authorization: token good")
    async with running.client() as client:
        reply = await client.ask("/user/alice/api", f"Cookie: {cookie}", *both)
        assert reply.status == 400
        assert b"sent twice" in reply.body
    assert upstream.requests == []


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
        'Use-As-Dictionary: match="/*"',
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
    assert abs(SystemClock().now() - at) < timedelta(seconds=60)


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


FORGED = '{"name":"root","admin":true}'


@pytest.mark.parametrize(
    "fields",
    [
        (f"X-Carrel-User: {FORGED}",),
        (f"x-carrel-user: {FORGED}", f"X-CARREL-USER: {FORGED}"),
        (f"X_Carrel_User: {FORGED}", f"X-Carrel_User: {FORGED}", "X_CARREL_AUTH: token"),
        ("Connection: X-Carrel-User, X-Carrel-Secret, X-Carrel-Auth, keep-alive",),
        (f"X-Carrel-User: {FORGED}", "Connection: X-Carrel-User"),
        (f"X-Carrel-Secret: {SECRET}", "X-Carrel-Auth: token"),
        ("X-Carrel-Anything: x", "X-Forwarded-User: root", "X-Forwarded-Email: root@hub.test"),
    ],
)
@pytest.mark.parametrize("trusted", [(), ("127.0.0.0/8",)], ids=["anybody", "trusted-peer"])
async def test_nobody_outside_says_who_a_visitor_is(
    fields: tuple[str, ...],
    trusted: tuple[str, ...],
    short_dir: Path,
    hub: FakeHub,
    upstream: Upstream,
) -> None:
    """Under no spelling, not twice, not by declaring ours to be for this hop only."""
    async with open_proxy(short_dir, hub, trusted_peers=list(trusted)) as running:
        running.route(guarded_route(upstream.target), plain_route(upstream.target, "/other/"))
        async with running.client() as client:
            reply = await client.ask("/user/alice/", f"Cookie: {COOKIE}=good", *fields)
            assert reply.status == 200
            assert (await client.ask("/other/", *fields)).status == 200
    guarded, plain = upstream.requests
    assert json.loads(guarded.one("x-carrel-user") or "")["name"] == "alice"
    assert guarded.one("x-carrel-secret") == SECRET
    assert guarded.one("x-carrel-auth") == "cookie"
    said = {name.lower().replace("_", "-") for name, _ in guarded.fields}
    assert {name for name in said if name.startswith("x-carrel-")} == {
        "x-carrel-user",
        "x-carrel-secret",
        "x-carrel-auth",
    }
    assert not {n for n, _ in plain.fields if "carrel" in n.lower()}
    assert not {n for n, _ in guarded.fields if n.lower() in ("x-forwarded-user",)}


async def test_a_visitor_is_told_apart_from_the_owner(
    running: Running, upstream: Upstream, hub: FakeHub
) -> None:
    """Two people, one server, one connection of a proxy before us."""
    hub.know("bobs", SERVER_ID, allowed("bob", session="b" * 64))
    async with running.client() as client:
        for token in ("good", "bobs", "good", "bobs"):
            await client.ask("/user/alice/api/me", f"Cookie: {COOKIE}={token}")
    names = [json.loads(r.one("x-carrel-user") or "")["name"] for r in upstream.requests]
    assert names == ["alice", "bob", "alice", "bob"]


async def test_a_visitor_whose_access_ends_is_cut_and_the_owner_is_not(
    running: Running, upstream: Upstream, hub: FakeHub
) -> None:
    hub.know("bobs", SERVER_ID, allowed("bob", session="b" * 64))

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        await reader.read()

    upstream.script = endless
    async with running.client() as alice, running.client() as bob:
        alice.get("/user/alice/events", f"Cookie: {COOKIE}=good")
        bob.get("/user/alice/events", f"Cookie: {COOKIE}=bobs")
        assert [(await one.head()).status for one in (alice, bob)] == [200, 200]
        hub.know("bobs", SERVER_ID, Verdict(known=True, allow=False))
        revoke(running, Revocation(server_id=SERVER_ID))
        await bob.rest()
        await eventually(lambda: len(list(running.proxy.edge.grants())) == 1)
        (grant,) = running.proxy.edge.grants()
        assert grant.user == "alice"


@pytest.mark.parametrize("field", [f"Cookie: {COOKIE}=good", "Authorization: token good"])
async def test_what_was_worked_out_for_a_connection_ends_with_the_verdict(
    field: str, running: Running, hub: FakeHub
) -> None:
    """The same fields again on the same connection, which then cost hardly anything."""
    async with running.client() as client:
        for _ in range(3):
            assert (await client.ask("/user/alice/", field)).status == 200
        hub.verdicts.clear()
        revoke(running, Revocation(user="alice"))
        assert (await client.ask("/user/alice/", field)).status == 403
        hub.know("good", SERVER_ID, allowed("alice"))
    assert len(hub.called("/verdict")) == 2


async def test_another_method_is_looked_at_by_itself(running: Running) -> None:
    """A link that is followed passes; a form of the same page, with the same fields, does not."""
    fields = (
        f"Cookie: {COOKIE}=good",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Mode: navigate",
        "Content-Length: 0",
    )
    async with running.client() as client:
        for method, status in (("GET", 200), ("GET", 200), ("POST", 403), ("GET", 200)):
            assert (await client.ask("/user/alice/", *fields, method=method)).status == status


async def test_with_no_stale_sessions_an_outage_locks_everybody_out(
    short_dir: Path, hub: FakeHub, upstream: Upstream
) -> None:
    clock = ManualClock(SystemClock().now())
    (short_dir / "p").mkdir()
    options = {"clock": clock, "state_dir": short_dir / "p", "stale_sessions_seconds": 0}
    async with open_proxy(short_dir, hub, **options) as running:  # type: ignore[arg-type]
        running.route(guarded_route(upstream.target))
        async with running.client() as client:
            assert (await client.ask("/user/alice/", f"Cookie: {COOKIE}=good")).status == 200
            hub.away = True
            clock.advance(10.5)
            assert (await client.ask("/user/alice/", f"Cookie: {COOKIE}=good")).status == 503
            page = await client.ask("/user/alice/lab", *NAVIGATION, f"Cookie: {COOKIE}=good")
            assert (page.status, page.all("set-cookie")) == (503, [])
    async with open_proxy(short_dir, hub, **options) as running, running.client() as client:  # type: ignore[arg-type]
        assert (await client.ask("/user/alice/", f"Cookie: {COOKIE}=good")).status == 503


async def test_a_proxy_started_in_an_outage_knows_whom_it_knew_and_nobody_else(
    short_dir: Path, hub: FakeHub, upstream: Upstream
) -> None:
    hub.know("other", SERVER_ID, allowed("bob"))
    (short_dir / "p").mkdir()
    async with open_proxy(short_dir, hub, state_dir=short_dir / "p") as running:
        running.route(guarded_route(upstream.target))
        async with running.client() as client:
            assert (await client.ask("/user/alice/", f"Cookie: {COOKIE}=good")).status == 200
    hub.away = True
    async with (
        open_proxy(short_dir, hub, state_dir=short_dir / "p") as running,
        running.client() as client,
    ):
        assert (await client.ask("/user/alice/", f"Cookie: {COOKIE}=good")).status == 200
        for field in (f"Cookie: {COOKIE}=other", "Accept: text/html", "Authorization: token other"):
            page = await client.ask("/user/alice/", *NAVIGATION[:1], field)
            assert page.status == 503, field
            assert page.one("location") is None
        hub.away = False
        hub.know("good", SERVER_ID, Verdict(known=True, allow=False))
        running.number = 5
        running.route(guarded_route(upstream.target))  # a gap: the whole table
        assert (await client.ask("/user/alice/", f"Cookie: {COOKIE}=good")).status == 403

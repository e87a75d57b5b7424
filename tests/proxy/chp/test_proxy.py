"""Routes over the REST API, and what they do to requests, in a whole proxy."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from proxy.chp.inside import ROUTES, TOKEN, Chp, api_client, running
from proxy.wire import Upstream, eventually, ok, open_upstream, read_request

from carrel_proxy.chp.api import HttpsRedirect
from carrel_proxy.chp.metrics import Metrics, merge
from carrel_proxy.chp.table import ChpTable
from carrel_proxy.core.websocket import accept_for
from carrel_proxy.engine.counters import Counters
from carrel_proxy.engine.deadlines import Deadlines
from carrel_shared.clock import ManualClock


@pytest.fixture
async def chp() -> AsyncIterator[Chp]:
    async with running() as chp:
        yield chp


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with open_upstream() as upstream:
        yield upstream


async def test_a_route_is_live_when_it_was_added(chp: Chp, upstream: Upstream) -> None:
    async with chp.client() as client:
        assert (await client.ask("/user/a/lab")).status == 404
        await chp.add("/user/a", upstream.target)
        assert (await client.ask("/user/a/lab?x=1")).body == b"ok"
        assert (await client.ask("/user/a")).body == b"ok"
        assert (await client.ask("/user/ab")).status == 404
        assert (await chp.api.delete(ROUTES + "/user/a/")).status_code == 204
        assert (await client.ask("/user/a/lab")).status == 404
    assert [request.target for request in upstream.requests] == ["/user/a/lab?x=1", "/user/a"]
    assert upstream.requests[0].one("x-forwarded-for") == "127.0.0.1"


async def test_keys_are_decoded_and_all_else_is_kept(chp: Chp, upstream: Upstream) -> None:
    posted = {"jupyterhub": True, "user": "a b@c", "extra": {"é": [1, None]}, "target": "http://h/"}
    await chp.api.post(ROUTES + "/user/a%20b%40c/", json=posted)
    routes = await chp.routes()
    assert routes == {
        "/user/a b@c": {**posted, "last_activity": "2026-01-01T00:00:00.000Z"},
    }
    assert (await chp.api.get(ROUTES + "/user/a%20b@c")).json() == routes["/user/a b@c"]
    await chp.add("/user/a b@c", upstream.target)
    assert list((await chp.routes())["/user/a b@c"]) == ["target", "last_activity"]


async def test_the_default_target_is_the_root(upstream: Upstream) -> None:
    async with running("--default-target", upstream.target) as chp, chp.client() as client:
        assert (await client.ask("/any/where")).body == b"ok"
        assert (await chp.routes())["/"]["target"] == upstream.target
        assert (await chp.api.delete(ROUTES)).status_code == 204
        assert (await client.ask("/any/where")).status == 404


@pytest.mark.parametrize(
    "shown",
    [
        {},
        *(
            {"Authorization": f"{text}"}
            for text in ("token", f"Bearer {TOKEN}", f"token {TOKEN}x", TOKEN)
        ),
    ],
)
async def test_the_token_is_asked_for_before_anything(chp: Chp, shown: dict[str, str]) -> None:
    async with api_client(chp.proxy, shown) as stranger:
        for answer in (
            await stranger.get(ROUTES),
            await stranger.delete(ROUTES + "/x"),
            await stranger.post(ROUTES + "/x", content=b"{not json"),
        ):
            assert (answer.status_code, answer.content) == (403, b"")


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/", "", 404),
        ("GET", "/api/routesx", "", 404),
        ("PUT", ROUTES, "", 405),
        ("GET", ROUTES + "/none", "", 404),
        ("DELETE", ROUTES + "/none", "", 404),
        ("POST", ROUTES + "/x", "{not json", 400),
        ("POST", ROUTES + "/x", "[" * 100_000, 400),
        ("POST", ROUTES + "/x", "[]", 400),
        ("POST", ROUTES + "/x", '{"target": 5}', 400),
        ("POST", ROUTES + "/x", '{"target": "http://169.254.169.254/"}', 400),
        ("POST", ROUTES + "/a//b", '{"target": "http://h"}', 400),
        ("POST", ROUTES + "/a/%2e%2e/b", '{"target": "http://h"}', 400),
        ("POST", ROUTES + "/%ff", '{"target": "http://h"}', 400),
        ("GET", ROUTES + "?inactive_since=never", "", 400),
        ("GET", ROUTES + "?inactive_since=20260101", "", 400),
        ("GET", ROUTES + "?inactive_since=2026-13-45", "", 400),
    ],
)
async def test_what_the_api_refuses(
    chp: Chp, method: str, path: str, body: str, status: int
) -> None:
    answer = await chp.api.request(method, path, content=body.encode())
    assert answer.status_code == status
    assert await chp.routes() == {}


async def test_use_moves_last_activity_and_failure_does_not(chp: Chp, upstream: Upstream) -> None:
    await chp.add("/a", upstream.target)
    async with chp.client() as client:
        chp.clock.advance(60)
        upstream.respond = lambda _: ok(status="404 Not Found")
        await client.ask("/a")
        assert (await chp.routes())["/a"]["last_activity"] == "2026-01-01T00:00:00.000Z"
        upstream.respond = lambda _: ok()
        await client.ask("/a")
        assert (await chp.routes())["/a"]["last_activity"] == "2026-01-01T00:01:00.000Z"


async def test_a_body_is_use_whatever_becomes_of_it(chp: Chp, upstream: Upstream) -> None:
    await chp.add("/a", upstream.target)
    chp.clock.advance(60)
    upstream.respond = lambda _: ok(status="404 Not Found")
    async with chp.client() as client:
        client.send(b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc")
        await client.response()
    assert (await chp.routes())["/a"]["last_activity"] == "2026-01-01T00:01:00.000Z"


async def test_what_was_open_counts_for_the_route_in_its_place(
    chp: Chp, upstream: Upstream
) -> None:
    await chp.add("/a", upstream.target)
    async with chp.client() as client:
        client.get("/a", "Content-Length: 3", method="POST")
        await eventually(lambda: upstream.open == 1)
        await chp.add("/a", upstream.target, posted="again")
        chp.clock.advance(60)
        client.send(b"abc")
        assert (await client.response()).status == 200
    assert (await chp.routes())["/a"]["last_activity"] == "2026-01-01T00:01:00.000Z"


def test_the_time_of_a_use_stays_what_it_was() -> None:
    class Wandering(ManualClock):
        def now(self) -> datetime:
            self.advance(0.4)
            return super().now()

    clock = Wandering()
    table = ChpTable(Deadlines(clock), clock, tls=ssl.create_default_context, counters=Counters())
    table.put("/a", {"target": "http://h"})
    route = table.shown()["/a"]
    assert table.shown()["/a"] == route
    table.note_used("/a", clock.monotonic())
    assert table.shown()["/a"] == table.shown()["/a"] != route


async def test_idle_routes_are_told_from_used_ones(chp: Chp, upstream: Upstream) -> None:
    await chp.add("/idle", upstream.target)
    chp.clock.advance(3600)
    await chp.add("/used", upstream.target)
    for name in ("inactive_since", "inactiveSince"):
        answer = await chp.api.get(ROUTES, params={name: "2026-01-01T00:30:00Z"})
        assert list(answer.json()) == ["/idle"]
    assert len((await chp.api.get(ROUTES, params={"inactive_since": ""})).json()) == 2
    for text, count in (
        ("2026", 0),
        ("2026-02", 2),
        ("2027", 2),
        ("2026-02-01t00:00z", 2),
        (" 2026-02-01 00:00:00.5-0130", 2),
        ("Thu, 01 Jan 2026 00:30:00 GMT", 1),
    ):
        assert len((await chp.api.get(ROUTES, params={"inactive_since": text})).json()) == count
    both = "?inactive_since=never&inactiveSince=2027&inactiveSince=2026"
    assert len((await chp.api.get(ROUTES + both)).json()) == 2


@pytest.mark.parametrize("around", ["token  {} ", "token\t{}", "Bearer x, token {}", "token {} x"])
async def test_what_is_around_the_token_does_not_matter(chp: Chp, around: str) -> None:
    async with api_client(chp.proxy, {"Authorization": around.format(TOKEN)}) as caller:
        assert (await caller.get(ROUTES)).status_code == 200


async def test_what_cannot_be_done_is_said_before_the_token_is_asked_for(chp: Chp) -> None:
    async with api_client(chp.proxy, {}) as stranger:
        assert (await stranger.put(ROUTES)).status_code == 405
        assert (await stranger.get(ROUTES + "x")).status_code == 404


async def test_a_user_of_a_windows_domain_has_a_route(chp: Chp, upstream: Upstream) -> None:
    await chp.add("/user/dom%5Ceve", upstream.target)
    assert "/user/dom\\eve" in await chp.routes()
    async with chp.client() as client:
        assert (await client.ask("/user/dom%5Ceve/lab")).body == b"ok"
    assert upstream.requests[0].target == "/user/dom%5Ceve/lab"
    assert (await chp.api.delete(ROUTES + "/user/dom%5ceve")).status_code == 204


async def test_hosts_are_routed_before_paths(upstream: Upstream) -> None:
    async with open_upstream() as root, running("--host-routing") as chp, chp.client() as client:
        await chp.add("/one.test/user", upstream.target)
        assert (await chp.api.get(ROUTES + "/one.test/user")).json()["host"] == "one.test"
        client.get("/user/x", host="One.Test:8443")
        assert (await client.response()).body == b"ok"
        client.get("/user/y", host="ONE.test.")
        assert (await client.response()).body == b"ok"
        for host in ("two.test", "evilone.test", "one.test.evil"):
            client.get("/one.test/user/x", host=host)
            assert (await client.response()).status == 404
        await chp.add("/", root.target)
        client.get("/user/x", host="two.test")
        assert (await client.response()).body == b"ok"
    assert [request.target for request in upstream.requests] == ["/user/x", "/user/y"]
    assert [request.target for request in root.requests] == ["/user/x"]


async def test_a_unix_socket_is_a_target(chp: Chp, short_dir: Path) -> None:
    async with open_upstream(short_dir / "u.sock"), chp.client() as client:
        await chp.add("/a", "http+unix://" + f"{short_dir}/u.sock".replace("/", "%2F"))
        assert (await client.ask("/a")).body == b"ok"


async def test_cookies_pass_both_ways_as_they_are(chp: Chp, upstream: Upstream) -> None:
    """JupyterHub and its servers keep them apart themselves, by path and by signature."""
    lines = [
        "Set-Cookie: jupyterhub-user-alice=t; Path=/; Domain=hub.test",
        "Set-Cookie: jupyterhub-session-id=1; Path=/",
        "Service-Worker-Allowed: /",
    ]
    upstream.respond = lambda _: ok(b"", *lines)
    await chp.add("/user/alice", upstream.target)
    sent = "jupyterhub-session-id=1; jupyterhub-user-bob=2; jupyterhub-user-bob=3; $V=1; =x"
    async with chp.client() as client:
        answer = await client.ask("/user/alice/", f"Cookie: {sent}")
    assert [f"Set-Cookie: {value}" for value in answer.all("set-cookie")] == lines[:2]
    assert answer.one("service-worker-allowed") == "/"
    assert upstream.requests[0].one("cookie") == sent


async def test_health_needs_no_route(chp: Chp) -> None:
    async with chp.client() as client:
        assert json.loads((await client.ask("/_chp_healthz")).body) == {"status": "OK"}
        assert (await client.ask("/_chp_healthz?x")).status == 404
        assert (await client.ask("/_carrel/health")).status == 404


async def test_a_target_that_is_away_is_a_503_page(chp: Chp) -> None:
    await chp.add("/a", "http://127.0.0.1:1")
    async with chp.client() as client:
        answer = await client.ask("/a")
        assert answer.status == 503
        assert (answer.one("content-type") or "").startswith("text/html")


async def test_error_pages_of_a_directory(short_dir: Path) -> None:
    (short_dir / "404.html").write_text("<b>lost</b>")
    (short_dir / "error.html").write_text("<b>oops</b>")
    async with running("--error-path", str(short_dir)) as chp, chp.client() as client:
        assert (await client.ask("/x")).body == b"<b>lost</b>"
        await chp.add("/a", "http://127.0.0.1:1")
        answer = await client.ask("/a")
        assert (answer.status, answer.body) == (503, b"<b>oops</b>")
        (short_dir / "error.html").unlink()
        answer = await client.ask("/a")
        assert (answer.status, answer.body) == (503, b"Service Unavailable")


async def test_the_error_target_is_asked_and_told_nothing_of_the_client(
    upstream: Upstream,
) -> None:
    upstream.respond = lambda _: ok(
        b"a page", "Content-Type: text/x-page", "Set-Cookie: a=1", "X-Other: 1", status="404 Not"
    )
    arguments = ("--error-target", upstream.target + "/hub/error")
    async with running(*arguments) as chp, chp.client() as client:
        for _ in range(2):
            answer = await client.ask("/nope?a=1&b=2", "Cookie: secret=1")
            assert (answer.status, answer.body) == (404, b"a page")
            assert answer.one("content-type") == "text/x-page"
            assert answer.one("set-cookie") is None
            assert answer.one("x-other") is None
    assert len(upstream.requests) == 2
    for asked in upstream.requests:
        assert asked.target == "/hub/error/404?url=%2Fnope%3Fa%3D1%26b%3D2"
        assert asked.one("cookie") is None


async def test_an_error_target_may_be_on_a_unix_socket(short_dir: Path) -> None:
    """JupyterHub names its own so when it listens on one."""
    target = f"http+unix://{quote(str(short_dir / 'hub.sock'), safe='')}/hub/error"
    async with open_upstream(short_dir / "hub.sock") as hub:
        hub.respond = lambda _: ok(b"a page")
        async with running("--error-target", target) as chp, chp.client() as client:
            assert (await client.ask("/nope")).body == b"a page"
        assert hub.requests[0].target == "/hub/error/404?url=%2Fnope"


async def test_without_its_error_target_it_has_its_own_page(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with running("--error-target", "http://127.0.0.1:1") as chp, chp.client() as client:
        for _ in range(3):
            answer = await client.ask("/nope")
            assert (answer.status, answer.body) == (404, b"Not Found")
            assert answer.one("content-type") == "text/plain"
        answer = await client.ask("/nope", "Accept: text/html")
        assert answer.status == 404
        assert b"404" in answer.body
        assert b"<h1>" in answer.body
    assert capsys.readouterr().out.count("error_target_failed") == 1


async def test_a_client_that_leaves_while_its_page_is_asked_for(upstream: Upstream) -> None:
    async def silent(reader: Any, _writer: Any) -> None:
        await reader.read()

    upstream.script = silent
    async with running("--error-target", upstream.target) as chp:
        async with chp.client() as client:
            client.get("/nope")
            await eventually(lambda: upstream.connections == 1)
        await eventually(lambda: chp.proxy.edge.connections == 0)


async def test_counters_have_the_names_that_dashboards_know(chp: Chp, upstream: Upstream) -> None:
    await chp.add("/a", upstream.target)
    async with chp.client() as client:
        await client.ask("/a")
        await client.ask("/none")
    await chp.api.get(ROUTES + "/a")
    await chp.routes()
    lines = (await chp.metrics()).splitlines()
    for line in (
        "api_route_add 1",
        "api_route_get 1",
        "last_activity_updating_count 2",
        "requests_web 2",
        "requests_ws 0",
        'requests_proxy{status="200"} 1',
        'requests_proxy{status="404"} 1',
        'requests_api{status="201"} 1',
        "find_target_for_req_count 2",
    ):
        assert line in lines
    names = {line.split("{")[0].split(" ")[0] for line in lines if not line.startswith("#")}
    assert {"process_resident_memory_bytes", "process_open_fds", "process_max_fds"} <= names
    assert {"process_start_time_seconds", "process_cpu_user_seconds_total"} <= names
    assert "carrel_proxy_first_byte_seconds_bucket" in names


async def test_summaries_have_the_quantiles_that_dashboards_know(chp: Chp) -> None:
    for milliseconds in range(100, 0, -1):
        chp.proxy.metrics.find_target_for_req.observe(milliseconds / 1000)
    lines = (await chp.metrics()).splitlines()
    for line in (
        'find_target_for_req{quantile="0.01"} 0.001',
        'find_target_for_req{quantile="0.5"} 0.05',
        'find_target_for_req{quantile="0.999"} 0.1',
        'last_activity_updating{quantile="0.5"} 0',
        "last_activity_updating_count 0",
    ):
        assert line in lines


async def test_counters_of_workers_are_merged(chp: Chp, upstream: Upstream) -> None:
    await chp.add("/a", upstream.target)
    async with chp.client() as client:
        await client.ask("/a")
    one = chp.proxy.metrics.snapshot()
    both = merge([one, json.loads(json.dumps(one)), Metrics().snapshot()])
    assert (both["requests_web"], both["proxied"], both["api"]) == (2, {"200": 2}, {"201": 2})
    assert both["find_target_for_req"][0] == len(both["find_target_for_req"][2]) == 2


@pytest.mark.parametrize(
    ("port", "host", "expected"),
    [
        (443, "hub.test:80", "https://hub.test/x?y=1"),
        (8443, "hub.test", "https://hub.test:8443/x?y=1"),
        (443, "[::1]:80", "https://[::1]/x?y=1"),
        (443, "hub.test/evil", None),
    ],
)
async def test_http_is_sent_to_https(port: int, host: str, expected: str | None) -> None:
    transport = httpx.ASGITransport(HttpsRedirect(port))
    async with httpx.AsyncClient(transport=transport, base_url="http://r") as client:
        answer = await client.get("/x?y=1", headers={"Host": host})
    assert answer.status_code == (301 if expected else 400)
    assert answer.headers.get("location") == expected


async def test_a_handshake_has_all_the_time_that_it_needs(upstream: Upstream) -> None:
    asked, go = asyncio.Event(), asyncio.Event()

    async def hold_back(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        asked.set()
        await go.wait()
        writer.write(SWITCH)
        await reader.read()

    upstream.script = hold_back
    async with running("--proxy-timeout", "500") as chp, chp.client() as client:
        await chp.add("/a", upstream.target)
        client.get("/a/x")
        await asyncio.wait_for(asked.wait(), 60)
        chp.clock.advance(60)
        chp.proxy.edge.deadlines.tick()
        assert (await client.response()).status == 503
        asked.clear()
        client.get("/a/ws", *HANDSHAKE)
        await asyncio.wait_for(asked.wait(), 60)
        chp.clock.advance(60)
        chp.proxy.edge.deadlines.tick()
        go.set()
        assert (await client.head()).status == 101


KEY = "dGhlIHNhbXBsZSBub25jZQ=="
HANDSHAKE = (
    *("Upgrade: websocket", "Connection: Upgrade"),
    *(f"Sec-WebSocket-Key: {KEY}", "Sec-WebSocket-Version: 13"),
)
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept_for(KEY.encode())
)

"""What pages of other origins make a signed-in browser send to a server."""

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from proxy.hub import FakeHub, allowed
from proxy.running import SECRET, SERVER_ID, Running, open_proxy
from proxy.wire import Upstream

from carrel_shared.wire.routes import Access, Route

COOKIE = f"Cookie: carrel-session-{SERVER_ID}=good"
HANDSHAKE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


def route(upstream: Upstream, **access: Any) -> Route:
    """Have a guarded route at /user/alice/."""
    return Route(
        prefix="/user/alice/",
        targets=[upstream.target],
        access=replace(Access(server_id=SERVER_ID, client_id="c", secret=SECRET), **access),
        server=True,
    )


@pytest.fixture(autouse=True)
def _guarded(running: Running, upstream: Upstream, hub: FakeHub) -> None:
    running.route(route(upstream))
    hub.know("good", SERVER_ID, allowed("alice"))


async def ask(running: Running, method: str, *fields: str) -> int:
    more = () if method == "GET" else ("Content-Length: 0",)
    async with running.client() as client:
        client.get("/user/alice/proxy/8000/x", *fields, *more, method=method)
        return (await client.response(method)).status


SITES = ("same-site", "cross-site", "SAME-SITE")
MODES = ("cors", "no-cors", "same-origin", "websocket")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("mode", MODES)
async def test_a_foreign_page_gets_nothing_by_a_cookie(
    method: str, site: str, mode: str, running: Running, upstream: Upstream
) -> None:
    """Images, scripts, `fetch`, whatever `mode` it claims (ADV-07)."""
    fields = (COOKIE, f"Sec-Fetch-Site: {site}", f"Sec-Fetch-Mode: {mode}")
    assert await ask(running, method, *fields) == 403
    assert upstream.requests == []


@pytest.mark.parametrize("dest", ["iframe", "frame", "object", "embed"])
async def test_a_foreign_page_frames_nothing(dest: str, running: Running) -> None:
    fields = (COOKIE, "Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: navigate")
    assert await ask(running, "GET", *fields, f"Sec-Fetch-Dest: {dest}") == 403


async def test_a_foreign_form_posts_nothing(running: Running) -> None:
    fields = (COOKIE, "Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: navigate")
    assert await ask(running, "POST", *fields, "Sec-Fetch-Dest: document") == 403
    assert await ask(running, "POST", COOKIE, "Origin: http://bob.hub.test") == 403


@pytest.mark.parametrize(
    "fields",
    [
        ("Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: cors"),
        ("Sec-Fetch-Site: none", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"),
        ("Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"),
        ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"),
        (),
        ("Origin: http://hub.test",),
        ("Origin: HTTP://Hub.Test",),
        ("Sec-Fetch-Site: same-origin", "Origin: null"),
    ],
)
async def test_ones_own_pages_links_and_scripts_pass(
    fields: tuple[str, ...], running: Running
) -> None:
    assert await ask(running, "GET", COOKIE, *fields) == 200


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.test",
        "http://bob.hub.test",
        "http://hub.test.evil.test",
        "http://evilhub.test",
        "http://hub.test:8001",
        "http://user@hub.test",
        "hub.test",
        "null",
        "",
    ],
)
async def test_a_websocket_of_another_origin_is_refused(
    origin: str, running: Running, upstream: Upstream
) -> None:
    """T38: browsers send cookies with a handshake from anywhere, and Origin is all that tells."""
    async with running.client() as client:
        client.get("/user/alice/ws", COOKIE, *HANDSHAKE, f"Origin: {origin}")
        assert (await client.response()).status == 403
    assert await ask(running, "GET", COOKIE, "Origin: http://hub.test", f"Origin: {origin}") == 403
    assert upstream.requests == []


async def test_a_navigation_is_no_excuse_for_a_websocket(running: Running) -> None:
    fields = ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate")
    async with running.client() as client:
        client.get("/user/alice/ws", COOKIE, *HANDSHAKE, *fields)
        assert (await client.response()).status == 403


async def test_a_token_of_ones_own_comes_from_anywhere(running: Running) -> None:
    """A page cannot have it without having been given it."""
    fields = ("Authorization: token good", "Origin: http://evil.test")
    assert await ask(running, "DELETE", *fields, "Sec-Fetch-Site: cross-site") == 200


async def test_an_application_may_judge_for_itself(running: Running, upstream: Upstream) -> None:
    running.route(route(upstream, csrf="app"))
    fields = (COOKIE, "Origin: http://trusted.test", "Sec-Fetch-Site: cross-site")
    assert await ask(running, "POST", *fields) == 200
    assert upstream.requests[0].one("origin") == "http://trusted.test"


async def test_the_origin_goes_on_as_it_was_sent(running: Running, upstream: Upstream) -> None:
    """W10: what is behind may be stricter than we are."""
    assert await ask(running, "POST", COOKIE, "Origin: http://hub.test") == 200
    assert upstream.requests[0].one("origin") == "http://hub.test"


async def test_a_route_with_a_host_of_its_own_knows_its_origin(
    running: Running, upstream: Upstream
) -> None:
    origin = "https://alice.hub.test"
    running.route(route(upstream, origin=origin))
    cookie = f"Cookie: __Host-carrel-session-{SERVER_ID}=good"
    assert await ask(running, "POST", cookie, f"Origin: {origin}") == 200
    assert await ask(running, "POST", cookie, "Origin: http://hub.test") == 403
    assert await ask(running, "POST", cookie, "Origin: http://alice.hub.test") == 403


async def test_a_trusted_peer_says_what_the_host_is(
    short_dir: Path, hub: FakeHub, upstream: Upstream
) -> None:
    """It may have another name for us than the browser has for it."""
    forwarded = ("X-Forwarded-Host: hub.example.org, inner", "X-Forwarded-Proto: https")
    origin = "Origin: https://hub.example.org"
    async with open_proxy(short_dir, hub, trusted_peers=["127.0.0.0/8"]) as trusting:
        trusting.route(route(upstream))
        assert await ask(trusting, "POST", COOKIE, origin, *forwarded) == 200
        assert await ask(trusting, "POST", COOKIE, "Origin: http://hub.test", *forwarded) == 403
    async with open_proxy(short_dir, hub) as wary:
        wary.route(route(upstream))
        assert await ask(wary, "POST", COOKIE, origin, *forwarded) == 403

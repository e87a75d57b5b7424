"""One id for a request: in the logs, at the target, and in what people are told."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from proxy.hub import FakeHub
from proxy.running import Running, guarded_route, open_proxy, plain_route
from proxy.wire import Upstream, open_upstream


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with open_upstream() as upstream:
        yield upstream


@pytest.fixture
async def running(short_dir: Path, hub: FakeHub, upstream: Upstream) -> AsyncIterator[Running]:
    async with open_proxy(short_dir, hub, trusted_peers=["127.0.0.1/32"]) as running:
        running.route(
            plain_route(upstream.target, "/a/"),
            plain_route("http://127.0.0.1:1", "/away/"),
            guarded_route(upstream.target),
        )
        yield running


@pytest.mark.parametrize("path", ["/nothing", "/away/", "/user/alice/api", "/a/../../x"])
async def test_programs_are_told_the_id(path: str, running: Running) -> None:
    async with running.client() as client:
        given = await client.ask(path, "X-Request-Id: given-by-the-proxy-before-us")
    assert json.loads(given.body)["request_id"] == "given-by-the-proxy-before-us"
    async with running.client() as client:
        made = json.loads((await client.ask(path)).body)["request_id"]
    assert len(made) >= 16


@pytest.mark.parametrize("path", ["/nothing", "/away/", "/user/alice/oauth_callback"])
async def test_people_are_shown_the_id(path: str, running: Running) -> None:
    async with running.client() as client:
        page = await client.ask(path, "Accept: text/html", "X-Request-Id: tell-the-admin")
    assert b'<p class="mark">Request tell-the-admin</p>' in page.body


async def test_each_request_has_its_own(running: Running, upstream: Upstream) -> None:
    async with running.client() as client:
        for _ in range(2):
            await client.ask("/a/")
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        refused = json.loads((await client.response()).body)["request_id"]
    ids = [request.one("x-request-id") for request in upstream.requests]
    assert len({*ids, refused}) == 3


@pytest.mark.parametrize("nasty", ["<b>x</b>", "a b", "x" * 65, "%0d%0a", "é"])
async def test_an_id_that_is_none_is_replaced(
    nasty: str, running: Running, upstream: Upstream
) -> None:
    async with running.client() as client:
        await client.ask("/a/", f"X-Request-Id: {nasty}")
        page = await client.ask("/nothing", "Accept: text/html", f"X-Request-Id: {nasty}")
    assert upstream.requests[0].one("x-request-id") != nasty
    assert nasty.encode("latin-1") not in page.body


async def test_of_others_it_is_not_taken(short_dir: Path, hub: FakeHub, upstream: Upstream) -> None:
    async with open_proxy(short_dir, hub) as running, running.client() as client:
        running.route(plain_route(upstream.target))
        await client.ask("/", "X-Request-Id: mine")
    assert upstream.requests[0].one("x-request-id") not in (None, "mine")


async def test_an_ipv4_client_is_one_on_a_socket_for_both_kinds(
    short_dir: Path, hub: FakeHub
) -> None:
    trusted = ["10.0.0.0/8", "fd00::/8"]
    async with open_proxy(short_dir, hub, trusted_peers=trusted) as running:
        for said, told, is_trusted in (
            ("::ffff:10.1.2.3", b"10.1.2.3", True),
            ("::ffff:192.0.2.1", b"192.0.2.1", False),
            ("10.1.2.3", b"10.1.2.3", True),
            ("fd00::1", b"fd00::1", True),
            ("::ffff:0:10.1.2.3", b"::ffff:0:10.1.2.3", False),
        ):
            peer, trusts, _ = running.proxy.edge.peer_of((said, 1, 0, 0))
            assert (peer, trusts) == (told, is_trusted)

"""Requests to a server on another host, through an edge and its relay, as if it were here."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from proxy.authority import Authority
from proxy.hub import FakeHub, allowed
from proxy.relay.fleet import HOST, Fleet, logged, open_fleet, open_relay
from proxy.running import KEY, SECRET, SERVER_ID, guarded_route, open_proxy, plain_route
from proxy.wire import (
    WAIT_SECONDS,
    Message,
    Upstream,
    eventually,
    ok,
    open_upstream,
    read_head,
    read_request,
)
from structlog.testing import capture_logs

from carrel_proxy.core.websocket import accept_for
from carrel_proxy.errors import BadTargetError
from carrel_proxy.mutual_tls import towards_relays
from carrel_shared.fleet import FleetFiles
from carrel_shared.wire.routes import Route

COOKIE = f"carrel-session-{SERVER_ID}"
ALICE = f"Cookie: {COOKIE}=good"
NAVIGATION = ("Sec-Fetch-Mode: navigate", "Accept: text/html")
KEY_FIELD = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", KEY_FIELD)
ACCEPTED = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept_for(b"dGhlIHNhbXBsZSBub25jZQ==")
)


@pytest.fixture
async def upstream(short_dir: Path) -> AsyncIterator[Upstream]:
    async with open_upstream(short_dir / "u.sock") as upstream:
        yield upstream


def behind(target: str, prefix: str = "/user/alice/") -> Route:
    """What the agent tells its relay."""
    return plain_route(target, prefix, peer_uid=os.getuid())


def guarded(fleet: Fleet, prefix: str = "/user/alice/") -> Route:
    """What the hub tells the edge."""
    return guarded_route(fleet.relay.target, prefix, host_id=HOST)


@pytest.fixture
async def fleet(short_dir: Path, hub: FakeHub, upstream: Upstream) -> AsyncIterator[Fleet]:
    hub.know("good", SERVER_ID, allowed())
    async with open_fleet(short_dir, hub) as fleet:
        fleet.relay.route(behind(upstream.target))
        fleet.edge.route(guarded(fleet))
        yield fleet


async def test_a_server_is_told_what_it_would_be_told_here(
    fleet: Fleet, upstream: Upstream
) -> None:
    async with fleet.edge.client() as client:
        reply = await client.ask(
            "/user/alice/api?x=%2F", ALICE, "X-Forwarded-For: 6.6.6.6", "X-Carrel-User: root"
        )
    assert reply.status == 200
    (request,) = upstream.requests
    assert request.start == "GET /user/alice/api?x=%2F HTTP/1.1"
    assert request.one("host") == "hub.test"
    assert request.one("x-forwarded-for") == "127.0.0.1"
    assert request.one("x-forwarded-proto") == "http"
    assert request.one("x-forwarded-host") == "hub.test"
    assert request.one("x-forwarded-port") == "80"
    assert request.one("x-carrel-secret") == SECRET
    assert request.one("x-carrel-auth") == "cookie"
    assert json.loads(request.one("x-carrel-user") or "")["name"] == "alice"
    assert request.one("x-request-id")
    assert request.one("cookie") is None


async def test_connections_are_kept_on_the_whole_way(fleet: Fleet, upstream: Upstream) -> None:
    async with fleet.edge.client() as client:
        for _ in range(5):
            assert (await client.ask("/user/alice/", ALICE)).body == b"ok"
    assert upstream.connections == 1
    assert fleet.relay.relay.edge.connections == 1


async def test_a_servers_say_is_limited_at_the_edge(fleet: Fleet, upstream: Upstream) -> None:
    upstream.respond = lambda _: ok(
        b"", "Set-Cookie: a=1; Path=/", "Clear-Site-Data: *", "X-Carrel-Trouble: away"
    )
    async with fleet.edge.client() as client:
        reply = await client.ask("/user/alice/", ALICE)
    assert reply.status == 200
    assert reply.all("set-cookie") == ["a=1; Path=/user/alice/"]
    assert reply.one("clear-site-data") is None
    assert reply.one("x-carrel-trouble") is None


@pytest.mark.parametrize("size", [0, 70_000, 3_000_000])
async def test_bodies_pass_whole_both_ways(size: int, fleet: Fleet, upstream: Upstream) -> None:
    upstream.respond = lambda request: ok(request.body)
    body = os.urandom(size)
    async with fleet.edge.client() as client:
        client.get("/user/alice/f", ALICE, f"Content-Length: {size}", method="PUT")
        client.send(body)
        assert (await client.response()).body == body
        client.get("/user/alice/f", ALICE, "Transfer-Encoding: chunked", method="POST")
        client.send(b"3\r\nabc\r\n0\r\n\r\n")
        assert (await client.response()).body == b"abc"


async def test_the_first_bytes_are_there_when_they_come(fleet: Fleet, upstream: Upstream) -> None:
    seen = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nevent\r\n")
        await seen.wait()
        writer.write(b"3\r\nend\r\n0\r\n\r\n")
        await reader.read()

    upstream.script = script
    async with fleet.edge.client() as client:
        client.get("/user/alice/events", ALICE)
        await client.head()
        assert await client.reader.readexactly(10) == b"5\r\nevent\r\n"
        seen.set()
        assert await client.reader.readexactly(13) == b"3\r\nend\r\n0\r\n\r\n"


async def test_a_body_that_ends_with_the_connection_is_whole(
    fleet: Fleet, upstream: Upstream
) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nall of it")

    upstream.script = script
    async with fleet.edge.client() as client:
        assert (await client.ask("/user/alice/", ALICE)).body == b"all of it"


async def test_a_body_is_sent_once_the_server_wants_it(fleet: Fleet, upstream: Upstream) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        writer.write(ok(await reader.readexactly(3)))

    upstream.script = script
    async with fleet.edge.client() as client:
        client.get("/user/alice/", ALICE, "Expect: 100-continue", "Content-Length: 3", method="PUT")
        assert (await client.head()).status == 100
        client.send(b"abc")
        assert (await client.response()).body == b"abc"


async def test_more_clients_than_one_address_may_have_reach_a_relay(
    fleet: Fleet, upstream: Upstream
) -> None:
    """They all come from the edge's address."""
    limits = fleet.relay.relay.edge.limits
    assert fleet.edge.proxy.edge.limits.connections_per_address > 0
    assert limits.connections_per_address == 0
    assert limits.body_seconds > fleet.edge.proxy.edge.limits.body_seconds
    assert limits.head.head > fleet.edge.proxy.edge.limits.head.head


@pytest.mark.parametrize(
    "half",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ],
)
async def test_half_an_answer_is_cut(half: bytes, fleet: Fleet, upstream: Upstream) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(half)

    upstream.script = script
    async with fleet.edge.client() as client:
        client.get("/user/alice/", ALICE)
        assert (await client.head()).status == 200
        rest = await client.rest()
    assert b"half" in rest
    assert not rest.endswith(b"0\r\n\r\n")


async def test_a_client_that_leaves_is_left_to_the_end(fleet: Fleet, upstream: Upstream) -> None:
    begun = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        begun.set()
        await reader.read()

    upstream.script = script
    async with fleet.edge.client() as client:
        client.get("/user/alice/", ALICE)
        await begun.wait()
    await eventually(lambda: upstream.open == 0)
    await eventually(lambda: fleet.relay.relay.edge.connections == 0)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_head(reader)
    writer.write(ACCEPTED)
    while data := await reader.read(65536):
        writer.write(data)


async def test_a_websocket_is_open_from_end_to_end(fleet: Fleet, upstream: Upstream) -> None:
    upstream.script = echo
    async with fleet.edge.client() as client:
        client.get("/user/alice/api/kernels/1/channels", ALICE, *UPGRADE)
        assert (await client.head()).status == 101
        data = os.urandom(300_000)
        client.send(data)
        assert await client.reader.readexactly(len(data)) == data
    await eventually(lambda: upstream.open == 0)
    await eventually(lambda: fleet.relay.relay.edge.connections == 0)


async def test_a_websocket_ends_when_its_server_does(fleet: Fleet, upstream: Upstream) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(ACCEPTED + b"last words")

    upstream.script = script
    async with fleet.edge.client() as client:
        client.get("/user/alice/ws", ALICE, *UPGRADE)
        assert (await client.head()).status == 101
        assert await client.rest() == b"last words"


async def test_a_refused_websocket_is_the_servers_answer(fleet: Fleet, upstream: Upstream) -> None:
    upstream.respond = lambda _: ok(b"no", status="403 Forbidden")
    async with fleet.edge.client() as client:
        client.get("/user/alice/ws", ALICE, *UPGRADE)
        reply = await client.response()
    assert (reply.status, reply.body) == (403, b"no")


async def test_a_revoked_websocket_is_cut_on_the_whole_way(
    fleet: Fleet, upstream: Upstream
) -> None:
    upstream.script = echo
    async with fleet.edge.client() as client:
        client.get("/user/alice/ws", ALICE, *UPGRADE)
        assert (await client.head()).status == 101
        fleet.edge.proxy.edge.cut(lambda _grant: True)
        assert await client.rest() == b""
        await eventually(lambda: upstream.open == 0)


# --- what is wrong is told once, and by the edge ---


async def ask_page(fleet: Fleet) -> Message:
    async with fleet.edge.client() as client:
        return await client.ask("/user/alice/x", *NAVIGATION, ALICE)


async def test_a_server_that_is_away_can_be_started(fleet: Fleet, short_dir: Path) -> None:
    fleet.relay.route(behind(f"unix:{short_dir}/gone.sock"))
    page = await ask_page(fleet)
    assert page.status == 503
    assert b'href="/hub/spawn/alice"' in page.body
    assert page.one("x-carrel-trouble") is None


async def test_a_route_that_the_relay_lacks_is_a_server_that_is_away(fleet: Fleet) -> None:
    fleet.relay.route()
    page = await ask_page(fleet)
    assert page.status == 503
    assert b'href="/hub/spawn/alice"' in page.body


async def test_troubles_do_not_cost_the_connection(fleet: Fleet, short_dir: Path) -> None:
    fleet.relay.route(behind(f"unix:{short_dir}/gone.sock"))
    async with fleet.edge.client() as client:
        for _ in range(3):
            assert (await client.ask("/user/alice/x", ALICE)).status == 503
        assert fleet.relay.relay.edge.connections == 1


async def test_programs_are_told_in_json(fleet: Fleet) -> None:
    fleet.relay.route()
    async with fleet.edge.client() as client:
        reply = await client.ask("/user/alice/api", ALICE)
    assert (reply.status, json.loads(reply.body)["status"]) == (503, 503)


async def test_a_server_that_talks_nonsense_is_named(fleet: Fleet, upstream: Upstream) -> None:
    upstream.respond = lambda _: b"nonsense\r\n\r\n"
    page = await ask_page(fleet)
    assert page.status == 502
    assert b"broke the protocol" in page.body


@pytest.mark.root
async def test_another_account_in_a_servers_place_gets_nothing(
    fleet: Fleet, upstream: Upstream
) -> None:
    fleet.relay.route(plain_route(upstream.target, "/user/alice/", peer_uid=54321))
    page = await ask_page(fleet)
    assert page.status == 502
    assert b"not your server" in page.body
    assert upstream.requests == []


async def test_a_host_that_is_away_is_not_a_server_that_has_stopped(
    short_dir: Path, hub: FakeHub
) -> None:
    hub.know("good", SERVER_ID, allowed())
    async with open_fleet(short_dir, hub) as fleet:
        fleet.edge.route(guarded(fleet))
        await fleet.relay.relay.edge.drain(0)
        page = await ask_page(fleet)
    assert page.status == 503
    assert b"host does not answer" in page.body
    assert b"spawn" not in page.body


async def test_a_relay_that_ends_in_the_middle_is_its_hosts_trouble(
    fleet: Fleet, upstream: Upstream
) -> None:
    begun = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        begun.set()
        await reader.read()

    upstream.script = script
    async with fleet.edge.client() as client:
        client.get("/user/alice/x", *NAVIGATION, ALICE)
        await begun.wait()
        await fleet.relay.relay.edge.drain(0)
        page = await client.response()
    assert page.status == 503
    assert b"host does not answer" in page.body


async def test_a_relay_without_room_is_its_hosts_trouble(
    short_dir: Path, hub: FakeHub, upstream: Upstream
) -> None:
    hub.know("good", SERVER_ID, allowed())
    authority = Authority(short_dir)
    async with AsyncExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("carrel_proxy.engine.edge.most_connections", lambda: 0)
            relay = await stack.enter_async_context(open_relay(short_dir, authority.host(HOST)))
        relay.route(behind(upstream.target))
        edge = await stack.enter_async_context(open_proxy(short_dir, hub, **authority.edge().fleet))
        edge.route(guarded_route(relay.target, host_id=HOST))
        with capture_logs() as logs:
            page = await ask_page(Fleet(authority, edge, relay))
    assert page.status == 503
    assert b"host does not answer" in page.body
    assert logged(logs, "connection_turned_away") == "there are too many connections"


async def test_without_a_certificate_of_its_own_an_edge_says_so(
    short_dir: Path, hub: FakeHub
) -> None:
    hub.know("good", SERVER_ID, allowed())
    async with open_proxy(short_dir, hub) as edge:
        edge.route(guarded_route("https://127.0.0.1:9", host_id=HOST))
        async with edge.client() as client:
            with capture_logs() as logs:
                assert (await client.ask("/user/alice/", ALICE)).status == 502
    assert "fleet_cert" in logged(logs, "relay_refused")


# --- the table ---


async def test_the_agent_pushes_and_nobody_else(fleet: Fleet) -> None:
    app = fleet.relay.relay.control_app
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://relay"
    ) as agent:
        headers = {"Authorization": f"Bearer {KEY}", "Carrel-Wire": "1"}
        route = {"prefix": "/user/bob/", "targets": ["unix:/run/b.sock"], "peer_uid": 1001}
        table = {"epoch": "a", "number": 7, "routes": [route]}
        refused = await agent.put("/control/v1/table", json=table)
        assert refused.status_code == 401
        taken = await agent.put("/control/v1/table", json=table, headers=headers)
        assert taken.json() == {"epoch": "a", "number": 7, "routes": 1}


@pytest.mark.parametrize(
    ("route", "word"),
    [
        (plain_route("unix:/run/b.sock"), "peer_uid"),
        (plain_route("http://192.0.2.1:80"), "this host only"),
        (plain_route("https://127.0.0.1:80"), "this host only"),
        (plain_route("https://127.0.0.1:80", host_id="c"), "no relay"),
        (guarded_route("unix:/run/b.sock", peer_uid=1), "guards no route"),
    ],
)
async def test_a_relay_leads_to_its_own_host(route: Route, word: str, fleet: Fleet) -> None:
    with pytest.raises(BadTargetError, match=word):
        fleet.relay.route(route)


@pytest.mark.parametrize(
    ("target", "word"),
    [
        ("http://127.0.0.1:80", "host:port"),
        ("unix:/run/b.sock", "host:port"),
        ("https://b", "host:port"),
        ("https://unix:/run/b.sock", "host:port"),
        ("https://u:p@b:443", "host:port"),
        ("https://169.254.169.254:443", "no server"),
        ("https://[::ffff:7f00:1]:443", "no server"),
        ("https://0x7f000001:443", "usual form"),
    ],
)
async def test_an_edge_reaches_other_hosts_over_tls_alone(
    target: str, word: str, fleet: Fleet
) -> None:
    with pytest.raises(BadTargetError, match=word):
        fleet.edge.route(plain_route(target, host_id=HOST))


async def test_who_has_connected_is_served_to_the_end(fleet: Fleet, upstream: Upstream) -> None:
    data_plane = fleet.relay.relay.edge
    reader, writer = await asyncio.open_connection("127.0.0.1", fleet.relay.port)
    await eventually(lambda: len(data_plane.arriving) == 1)
    async with asyncio.timeout(WAIT_SECONDS), asyncio.TaskGroup() as group:
        group.create_task(data_plane.drain(WAIT_SECONDS))
        await eventually(lambda: data_plane.draining)
        edge = fleet.authority.edge("another")
        await writer.start_tls(towards_relays(FleetFiles(edge.ca, edge.cert, edge.key)))
        writer.write(b"GET /user/alice/last HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        assert b"Connection: close" in await reader.read()
    assert upstream.requests[0].target == "/user/alice/last"
    writer.close()


async def test_a_relay_comes_back_with_its_table(
    short_dir: Path, hub: FakeHub, upstream: Upstream
) -> None:
    hub.know("good", SERVER_ID, allowed())
    async with open_fleet(short_dir, hub) as fleet:
        fleet.relay.route(behind(upstream.target))
        await fleet.relay.relay.stop()
        pair = fleet.authority.host(HOST)
        async with open_relay(short_dir, pair) as again:
            fleet.edge.route(guarded_route(again.target, host_id=HOST))
            assert (await ask_page(fleet)).body == b"ok"

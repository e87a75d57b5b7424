"""What the proxy counts, and how the hub is told."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from proxy.hub import FakeHub, allowed
from proxy.running import KEY, SERVER_ID, Running, guarded_route, open_proxy, plain_route
from proxy.wire import Upstream, eventually, ok, open_upstream

from carrel_proxy.control.counted import merge_routes, merge_totals
from carrel_proxy.core import troubles
from carrel_proxy.core.answers import Reason, Trouble
from carrel_proxy.core.websocket import accept_for
from carrel_shared.clock import ManualClock
from carrel_shared.service_auth import service_headers
from carrel_shared.wire.counters import ProxyCounters, ProxyTotals, RouteActivity
from carrel_shared.wire.routes import Revocation

WS_KEY = b"dGhlIHNhbXBsZSBub25jZQ=="


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with open_upstream() as upstream:
        yield upstream


@pytest.fixture
async def running(short_dir: Path, hub: FakeHub) -> AsyncIterator[Running]:
    async with open_proxy(short_dir, hub, clock=ManualClock()) as running:
        yield running


async def ask(running: Running, **query: Any) -> ProxyCounters:
    transport = httpx.ASGITransport(running.proxy.control_app)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://control", headers=service_headers(KEY)
    ) as client:
        reply = await client.get("/control/v1/counters", params=query)
    assert reply.status_code == 200, reply.text
    return ProxyCounters.model_validate_json(reply.content)


def only(counts: dict[str, int]) -> dict[str, int]:
    return {name: number for name, number in counts.items() if number}


async def test_requests_are_counted_by_kind_and_class_of_status(
    running: Running, upstream: Upstream
) -> None:
    running.route(plain_route(upstream.target, "/a/"))
    status = iter(("200 OK", "404 Not Found", "201 Created", "503 Away"))
    upstream.respond = lambda _: ok(b"", status=next(status))
    async with running.client() as client:
        await client.ask("/a/")
        await client.ask("/a/", method="HEAD")
        await client.ask("/a/", "Content-Length: 0", method="POST")
        await client.ask("/a/", method="DELETE")
    counters = await ask(running)
    assert only(counters.totals.requests["read"]) == {"2xx": 1, "4xx": 1}
    assert only(counters.totals.requests["write"]) == {"2xx": 1, "5xx": 1}
    assert (counters.totals.upstream_opened, counters.totals.upstream_reused) == (1, 3)
    assert sum(counters.totals.first_byte.counts) == 4
    assert counters.routes[0].requests == 4


async def test_bodies_are_counted_while_they_flow_and_after(
    running: Running, upstream: Upstream
) -> None:
    running.route(plain_route(upstream.target, "/a/"))
    go_on = asyncio.Event()

    async def in_two_parts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"12345")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nabc")
        await go_on.wait()
        writer.write(b"defg")

    upstream.script = in_two_parts
    async with running.client() as client:
        client.get("/a/", "Content-Length: 5", method="POST")
        client.send(b"12345")
        await client.head()
        await client.reader.readexactly(3)
        during = await ask(running)
        assert (during.totals.requests_open, during.totals.received_bytes) == (1, 5)
        assert during.totals.sent_bytes == during.routes[0].sent_bytes == 3
        go_on.set()
        await client.reader.readexactly(4)
    await eventually(lambda: not running.proxy.edge.connections)
    after = await ask(running)
    assert (after.totals.requests_open, after.totals.connections_open) == (0, 0)
    assert (after.totals.received_bytes, after.totals.sent_bytes) == (5, 7)
    assert (after.routes[0].received_bytes, after.routes[0].sent_bytes) == (5, 7)


async def test_sockets_and_what_they_carry_are_counted(
    running: Running, upstream: Upstream
) -> None:
    running.route(plain_route(upstream.target, "/a/"))

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: " + accept_for(WS_KEY) + b"\r\n\r\n"
        )
        while data := await reader.read(100):
            writer.write(data + b"!")

    upstream.script = echo
    async with running.client() as client:
        client.get(
            "/a/ws",
            "Connection: Upgrade",
            "Upgrade: websocket",
            f"Sec-WebSocket-Key: {WS_KEY.decode()}",
            "Sec-WebSocket-Version: 13",
        )
        assert (await client.head()).status == 101
        client.send(b"four")
        assert await client.reader.readexactly(5) == b"four!"
        during = await ask(running)
        assert (during.totals.sockets_open, during.routes[0].sockets) == (1, 1)
        assert during.totals.upstream_open == 0
        assert (during.totals.socket_received_bytes, during.totals.socket_sent_bytes) == (4, 5)
    await eventually(lambda: not running.proxy.edge.tunnels)
    after = await ask(running)
    assert (after.totals.sockets_opened, after.totals.sockets_open) == (1, 0)
    assert (after.totals.socket_received_bytes, after.totals.socket_sent_bytes) == (4, 5)
    assert after.routes[0].sockets == 0
    assert (after.routes[0].received_bytes, after.routes[0].sent_bytes) == (4, 5)
    assert only(after.totals.requests["upgrade"]) == {"1xx": 1}


async def test_own_answers_are_counted_by_reason(
    running: Running, upstream: Upstream, hub: FakeHub
) -> None:
    running.route(
        guarded_route(upstream.target), plain_route("http://127.0.0.1:1", "/nobody-there/")
    )
    async with running.client() as client:
        await client.ask("/elsewhere")
        await client.ask("/user/alice/api")
        await client.ask("/user/alice/lab", "Accept: text/html")
        await client.ask("/nobody-there/")
        await client.ask("/_carrel/health")
        hub.away = True
        await client.ask("/user/alice/api", "Authorization: token abc")
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        await client.response()
    totals = (await ask(running)).totals
    assert totals.own_answers == {
        "not_found": 1,
        "not_signed_in": 1,
        "sign_in": 1,
        "target_away": 1,
        "health": 1,
        "hub_away": 1,
        "refused": 1,
    }
    assert totals.upstream_failed == 1


async def test_verdicts_and_revocations_are_counted(
    running: Running, upstream: Upstream, hub: FakeHub
) -> None:
    running.route(guarded_route(upstream.target))
    hub.know("good", SERVER_ID, allowed())
    async with running.client() as client:
        for _ in range(3):
            await client.ask("/user/alice/api", "Authorization: token good")
    running.proxy.guard.revoke(Revocation(user="alice"))
    totals = (await ask(running)).totals
    assert (totals.verdict_hits, totals.verdict_misses, totals.verdict_asks) == (2, 1, 1)
    assert (totals.revocations, totals.verdicts_kept) == (1, 0)


async def test_a_response_that_is_cut_is_counted(running: Running, upstream: Upstream) -> None:
    running.route(plain_route(upstream.target, "/a/"))

    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")

    upstream.script = half
    async with running.client() as client:
        client.get("/a/")
        await client.rest()
    assert (await ask(running)).totals.responses_cut == 1


async def test_routes_come_in_pages(running: Running, upstream: Upstream) -> None:
    running.route(*(plain_route(upstream.target, f"/{name}/") for name in "cadbe"))
    seen, after = [], ""
    while True:
        page = await ask(running, limit=2, after=after)
        seen.append([route.prefix for route in page.routes])
        if page.next is None:
            break
        after = page.next
    assert seen == [["/a/", "/b/"], ["/c/", "/d/"], ["/e/"]]
    assert (await ask(running, limit=0)).routes == []


async def test_routes_that_were_not_used_are_left_out_when_asked(
    running: Running, upstream: Upstream
) -> None:
    running.route(plain_route(upstream.target, "/used/"), plain_route(upstream.target, "/idle/"))
    clock = running.proxy.clock
    assert isinstance(clock, ManualClock)
    async with running.client() as client:
        await client.ask("/used/")
    used_at = clock.now()
    clock.advance(600)
    recent = await ask(running, active_since=(used_at - timedelta(seconds=1)).isoformat())
    assert [(route.prefix, route.last_activity) for route in recent.routes] == [("/used/", used_at)]
    assert (await ask(running, active_since=clock.now().isoformat())).routes == []


@pytest.mark.parametrize("query", ["limit=-1", "limit=10001", "active_since=yesterday"])
async def test_a_query_that_makes_no_sense_is_refused(query: str, running: Running) -> None:
    transport = httpx.ASGITransport(running.proxy.control_app)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://control", headers=service_headers(KEY)
    ) as client:
        reply = await client.get(f"/control/v1/counters?{query}")
    assert (reply.status_code, reply.json()["code"]) == (422, "refused")
    assert query.partition("=")[0] in reply.json()["message"]


async def test_activity_is_reported_once_and_still_known(
    running: Running, upstream: Upstream, hub: FakeHub
) -> None:
    running.route(guarded_route(upstream.target))
    hub.know("good", SERVER_ID, allowed())
    async with running.client() as client:
        await client.ask("/user/alice/api", "Authorization: token good")
    assert list(running.proxy.table.take_activity()) == [SERVER_ID]
    assert running.proxy.table.take_activity() == {}
    assert (await ask(running)).routes[0].last_activity is not None


async def test_workers_are_merged_into_one(running: Running, upstream: Upstream) -> None:
    running.route(plain_route(upstream.target, "/a/"))
    async with running.client() as client:
        await client.ask("/a/")
        await client.ask("/nothing")
    one = (await ask(running)).totals
    both = merge_totals([one, one])
    assert both.requests["read"]["2xx"] == 2
    assert both.own_answers == {"not_found": 2}
    assert both.first_byte.bounds == one.first_byte.bounds
    assert sum(both.first_byte.counts) == 2
    assert both.since == one.since
    assert both.process.most_descriptors == one.process.most_descriptors
    assert both.process.open_descriptors == 2 * one.process.open_descriptors
    assert isinstance(merge_totals([one]), ProxyTotals)
    assert merge_totals([one]) == one


def test_routes_of_workers_are_merged_by_prefix() -> None:
    at = ManualClock().now()

    def route(prefix: str, *, minutes: int | None) -> RouteActivity:
        return RouteActivity(
            prefix=prefix,
            requests=1,
            sockets=2,
            received_bytes=3,
            sent_bytes=4,
            last_activity=at + timedelta(minutes=minutes) if minutes is not None else None,
        )

    merged = merge_routes(
        [[route("/b/", minutes=None)], [route("/b/", minutes=1), route("/a/", minutes=2)]]
    )
    assert [(one.prefix, one.sockets, one.requests) for one in merged] == [
        ("/a/", 2, 1),
        ("/b/", 4, 2),
    ]
    assert merged[1].last_activity == at + timedelta(minutes=1)


def test_every_trouble_says_what_it_is_counted_as() -> None:
    unnamed = [
        name
        for name, value in vars(troubles).items()
        if isinstance(value, Trouble) and value.reason is Reason.OTHER
    ]
    assert unnamed == []

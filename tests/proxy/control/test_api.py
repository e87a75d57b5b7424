"""The control API: a numbered table, changes that follow it, and nobody but the hub."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec.structs import replace
from proxy.hub import FakeHub, allowed
from proxy.running import KEY, SECRET, Running, guarded_route, open_proxy, plain_route
from proxy.wire import Upstream, eventually, ok, open_upstream, read_request

from carrel_shared.service_auth import service_headers
from carrel_shared.wire.routes import (
    Change,
    DeleteRoute,
    PutRoute,
    Revocation,
    Revoke,
    Route,
    RouteChanges,
    RouteTable,
)


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with open_upstream() as upstream:
        yield upstream


@pytest.fixture
async def running(short_dir: Path, hub: FakeHub, upstream: Upstream) -> AsyncIterator[Running]:
    async with open_proxy(short_dir, hub, default_target=upstream.target) as running:
        yield running


@pytest.fixture
async def api(running: Running) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(running.proxy.control_app)
    headers = service_headers(KEY)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://control", headers=headers
    ) as client:
        yield client


def table(*routes: Route, number: int = 1, epoch: str = "e") -> bytes:
    return RouteTable(epoch=epoch, number=number, routes=list(routes)).json()


def changes(*made: Change, base: int, number: int, epoch: str = "e") -> bytes:
    return RouteChanges(epoch=epoch, base=base, number=number, changes=list(made)).json()


async def test_a_table_is_taken_and_changed(
    running: Running, api: httpx.AsyncClient, upstream: Upstream
) -> None:
    first = await api.put("/control/v1/table", content=table(plain_route(upstream.target, "/a/")))
    assert first.json() == {"epoch": "e", "number": 1, "routes": 1}
    made = changes(
        PutRoute(route=plain_route(upstream.target, "/b/")),
        DeleteRoute(prefix="/a/"),
        Revoke(revocation=Revocation(user="x")),
        base=1,
        number=4,
    )
    second = await api.post("/control/v1/changes", content=made)
    assert (second.status_code, second.json()["number"]) == (200, 4)
    assert (await api.get("/control/v1/status")).json() == second.json()
    upstream.respond = lambda request: (
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n" + request.target[:3].encode()
    )
    async with running.client() as client:
        assert (await client.ask("/b/x")).body == b"/b/"


@pytest.mark.parametrize(("epoch", "base"), [("e", 0), ("e", 2), ("other", 1), ("", 0)])
async def test_changes_that_do_not_follow_are_answered_with_the_status(
    epoch: str, base: int, api: httpx.AsyncClient, hub: FakeHub
) -> None:
    await api.put("/control/v1/table", content=table())
    reply = await api.post(
        "/control/v1/changes", content=changes(base=base, number=base + 1, epoch=epoch)
    )
    assert reply.status_code == 409
    assert reply.json() == {"epoch": "e", "number": 1, "routes": 0}


async def test_a_table_that_comes_late_is_answered_with_the_status(api: httpx.AsyncClient) -> None:
    """As from a hub that was stopped while another one pushed."""
    newer = table(plain_route("unix:/new", "/new/"), number=5)
    status = (await api.put("/control/v1/table", content=newer)).json()
    late = await api.put("/control/v1/table", content=table(number=4))
    assert (late.status_code, late.json()) == (409, status)
    same = await api.put("/control/v1/table", content=table(number=5))
    other_lineage = await api.put("/control/v1/table", content=table(number=1, epoch="f"))
    assert (same.status_code, other_lineage.status_code) == (200, 200)


async def test_a_table_keeps_routes_that_it_names_and_does_not_have(
    running: Running, api: httpx.AsyncClient
) -> None:
    """They stay as they are, secrets too."""
    before = [
        guarded_route("unix:/a", "/user/a/", "0" * 12),
        guarded_route("unix:/b", "/user/b/", "1" * 12),
        guarded_route("unix:/c", "/user/c/", "2" * 12),
    ]
    await api.put("/control/v1/table", content=table(*before, number=5))
    changed = guarded_route("unix:/new", "/user/a/", "3" * 12)
    after = RouteTable(
        epoch="f", number=1, routes=[changed], keep=["/user/a/", "/user/b/", "/user/x/"]
    )
    reply = await api.put("/control/v1/table", content=after.json())
    assert reply.json() == {"epoch": "f", "number": 1, "routes": 2}
    assert running.proxy.table.snapshot().routes == [changed, before[1]]


async def test_nothing_follows_no_table(api: httpx.AsyncClient) -> None:
    reply = await api.post("/control/v1/changes", content=changes(base=0, number=1, epoch=""))
    assert reply.status_code == 409


async def test_secrets_are_not_shown(api: httpx.AsyncClient, upstream: Upstream) -> None:
    await api.put("/control/v1/table", content=table(guarded_route(upstream.target)))
    reply = await api.get("/control/v1/table")
    assert SECRET not in reply.text
    assert reply.json()["routes"][0]["prefix"] == "/user/alice/"


async def test_only_the_hub_may_call(running: Running) -> None:
    transport = httpx.ASGITransport(running.proxy.control_app)
    async with httpx.AsyncClient(transport=transport, base_url="http://control") as client:
        for method, path in (
            ("PUT", "/control/v1/table"),
            ("POST", "/control/v1/changes"),
            ("GET", "/control/v1/table"),
            ("GET", "/control/v1/status"),
            ("POST", "/control/v1/drain"),
            ("DELETE", "/control/v1/drain"),
            ("GET", "/control/v1/drain"),
            ("GET", "/openapi.json"),
        ):
            assert (await client.request(method, path)).status_code == 401
        assert (await client.get("/control/v1/health")).status_code == 200


@pytest.mark.parametrize(
    "target",
    [
        "file:///etc/passwd",
        "http://169.254.169.254:80",
        "http://[::ffff:7f00:1]:80",
        "http://0.0.0.0:80",
        "http://0x7f000001:80",
        "http://017700000001:80",
        "http+unix://%2fvar%2frun%2fdocker.sock",
        "http://user@host:80",
        "http://host:80/path",
        "http://host\r\n:80",
        "unix:relative",
        "unix:/" + "a" * 200,
        "127.0.0.1:80",
        "",
    ],
)
async def test_a_target_that_is_none_of_ours_changes_nothing(
    target: str, api: httpx.AsyncClient, upstream: Upstream
) -> None:
    await api.put("/control/v1/table", content=table(plain_route(upstream.target, "/a/")))
    bad = plain_route(target, "/b/")
    put = await api.put("/control/v1/table", content=table(bad, number=2))
    assert (put.status_code, put.json()["code"]) == (422, "bad_route")
    post = await api.post(
        "/control/v1/changes",
        content=changes(DeleteRoute(prefix="/a/"), PutRoute(route=bad), base=1, number=3),
    )
    assert post.status_code == 422
    assert (await api.get("/control/v1/status")).json() == {
        "epoch": "e",
        "number": 1,
        "routes": 1,
    }


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b'{"epoch":1}', b"[" * 100_000, b'{"__proto__":{}}', b"\xff"),
        b'{"epoch":"","number":1,"routes":[]}',
    ],
)
async def test_a_body_that_makes_no_sense_is_a_422(body: bytes, api: httpx.AsyncClient) -> None:
    reply = await api.put("/control/v1/table", content=body)
    assert reply.status_code == 422
    assert set(reply.json()) == {"status", "code", "message"}


@pytest.mark.parametrize(
    "routes",
    [
        "[" * 10_000 + "]" * 10_000,
        '{"__proto__":' * 10_000 + "1" + "}" * 10_000,
        "[" + ",".join(["{}"] * 300_000) + "]",
        '[{"prefix":"/","targets":[' + ",".join(["1"] * 300_000) + "]}]",
        '[{"prefix":"/","targets":["http://h:1"],"number":' + "9" * 100_000 + "}]",
    ],
    ids=["deep lists", "deep objects", "many bad routes", "many bad targets", "a long number"],
)
async def test_a_table_that_is_wrong_throughout_is_told_one_thing(
    routes: str, api: httpx.AsyncClient, upstream: Upstream
) -> None:
    """R20: what is wrong with it must not take more memory than the table itself."""
    await api.put("/control/v1/table", content=table(plain_route(upstream.target)))
    body = '{"epoch":"e","number":2,"routes":' + routes + "}"
    reply = await api.put("/control/v1/table", content=body)
    assert reply.status_code == 422
    assert len(reply.text) < 300
    assert (await api.get("/control/v1/status")).json()["number"] == 1


async def test_a_table_that_is_too_large_is_refused_before_it_is_all_there(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("carrel_proxy.control.api.MAX_BODY_BYTES", 100_000)
    sent = 0

    async def receive() -> dict[str, Any]:
        nonlocal sent
        sent += 10_000
        return {"type": "http.request", "body": b"[" * 10_000, "more_body": sent < 10_000_000}

    answered: list[Any] = []

    async def send(message: Any) -> None:
        answered.append(message)

    headers = [
        (name.lower().encode(), text.encode()) for name, text in service_headers(KEY).items()
    ]
    scope = {
        "type": "http",
        "method": "PUT",
        "path": "/control/v1/table",
        "raw_path": b"/control/v1/table",
        "query_string": b"",
        "headers": headers,
    }
    await running.proxy.control_app(scope, receive, send)
    assert answered[0]["status"] == 413
    assert sent <= 110_000


async def test_requests_go_to_the_hub_until_it_says_otherwise(
    running: Running, api: httpx.AsyncClient, upstream: Upstream
) -> None:
    async with running.client() as client:
        assert (await client.ask("/hub/home")).status == 200
        async with open_upstream() as other:
            await api.put("/control/v1/table", content=table(plain_route(other.target)))
            assert (await client.ask("/hub/home")).status == 200
            assert (len(upstream.requests), len(other.requests)) == (1, 1)
            await api.post(
                "/control/v1/changes", content=changes(DeleteRoute(prefix="/"), base=1, number=2)
            )
            assert (await client.ask("/hub/home")).status == 200
            assert (len(upstream.requests), len(other.requests)) == (2, 1)


async def test_the_first_route_with_a_host_ends_the_default_route(
    running: Running, api: httpx.AsyncClient, upstream: Upstream
) -> None:
    """Hosts are told apart from then on, so no other name may lead to the hub."""
    await api.put("/control/v1/table", content=table())
    hosted = PutRoute(route=plain_route(upstream.target, host="a.test"))
    await api.post("/control/v1/changes", content=changes(hosted, base=1, number=2))
    async with running.client() as client:
        assert (await client.ask("/", host="a.test")).status == 200
        refused = await client.ask("/", host="b.test")
        assert refused.status == 421
        gone = DeleteRoute(prefix="/", host="a.test")
        await api.post("/control/v1/changes", content=changes(gone, base=2, number=3))
        assert (await client.ask("/", host="b.test")).status == 200


async def test_a_route_that_stays_keeps_its_connections(
    running: Running, api: httpx.AsyncClient, upstream: Upstream
) -> None:
    async with running.client() as client:
        for number in range(1, 4):
            route = plain_route(upstream.target, "/a/")
            await api.put("/control/v1/table", content=table(route, number=number))
            assert (await client.ask("/a/")).status == 200
    assert upstream.connections == 1


async def test_a_new_secret_goes_with_the_next_request(
    running: Running, api: httpx.AsyncClient, upstream: Upstream, hub: FakeHub
) -> None:
    hub.know("good", "0123456789ab", allowed())
    route = guarded_route(upstream.target)
    await api.put("/control/v1/table", content=table(route))
    assert route.access is not None
    renewed = replace(route, access=replace(route.access, secret="second"))
    async with running.client() as client:
        await client.ask("/user/alice/", "Authorization: token good")
        await api.post(
            "/control/v1/changes", content=changes(PutRoute(route=renewed), base=1, number=2)
        )
        await client.ask("/user/alice/", "Authorization: token good")
    secrets = [request.one("x-carrel-secret") for request in upstream.requests]
    assert secrets == [SECRET, "second"]


async def test_a_proxy_is_taken_out_of_service_and_in_again(
    running: Running, api: httpx.AsyncClient, upstream: Upstream
) -> None:
    await api.put("/control/v1/table", content=table(plain_route(upstream.target)))
    async with running.client() as client:
        assert (await client.ask("/")).one("connection") is None
        begun = await api.post("/control/v1/drain")
        assert begun.json() == {"draining": True, "requests": 0, "sockets": 0}
        assert (await api.get("/control/v1/health")).json()["status"] == "draining"
        assert (await client.ask("/")).one("connection") == "close"
        assert await client.rest() == b""
    async with running.client() as client:
        assert (await client.ask("/_carrel/health")).status == 503
    held = asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await held.wait()
        writer.write(ok(b"late"))

    async with open_upstream() as slow, running.client() as client:
        slow.script = hold
        route = plain_route(slow.target, "/slow/")
        await api.post(
            "/control/v1/changes", content=changes(PutRoute(route=route), base=1, number=2)
        )
        client.get("/slow/")
        await eventually(lambda: len(running.proxy.edge.exchanges) == 1)
        assert (await api.get("/control/v1/drain")).json()["requests"] == 1
        held.set()
        assert (await client.response()).body == b"late"
    assert (await api.delete("/control/v1/drain")).json()["draining"] is False
    async with running.client() as client:
        assert (await client.ask("/_carrel/health")).status == 200
        assert (await client.ask("/")).one("connection") is None


async def test_twenty_thousand_routes_are_taken_and_kept(
    running: Running, api: httpx.AsyncClient, short_dir: Path
) -> None:
    routes = [
        guarded_route(f"unix:/run/carrel/s/{n:012x}/http.sock", f"/user/user{n}/", f"{n:012x}")
        for n in range(20_000)
    ]
    assert (await api.put("/control/v1/table", content=table(*routes))).json()["routes"] == 20_000
    again = await api.put("/control/v1/table", content=table(*routes[1:], number=2))
    assert again.json()["routes"] == 19_999
    async with open_proxy(short_dir, FakeHub()) as restarted:
        found = restarted.proxy.dispatcher.routes.match(b"hub.test", b"/user/user777/lab")
        assert found is not None
        assert found.wire == routes[777]

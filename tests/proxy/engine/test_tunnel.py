"""WebSockets: a valid handshake, then bytes, until either side or the hub ends them."""

import asyncio
import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from proxy.hub import FakeHub, allowed
from proxy.running import SERVER_ID, Running, guarded_route, open_proxy, plain_route
from proxy.wire import Client, Upstream, eventually, ok, read_head, read_request
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application
from tornado.websocket import WebSocketHandler, websocket_connect

from carrel_proxy.core.frames import CLOSE_RESTARTING
from carrel_proxy.core.websocket import accept_for
from carrel_shared.clock import ManualClock, SystemClock
from carrel_shared.wire.routes import Revocation, Revoke, RouteChanges

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
HANDSHAKE = (
    "Upgrade: websocket",
    "Connection: keep-alive, Upgrade",
    f"Sec-WebSocket-Key: {KEY}",
    "Sec-WebSocket-Version: 13",
)
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: " + accept_for(KEY.encode()) + b"\r\n\r\n"
)
COOKIE = f"Cookie: carrel-session-{SERVER_ID}=good"

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter


async def echo(reader: Reader, writer: Writer) -> None:
    await read_request(reader)
    writer.write(SWITCH)
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def open_tunnel(client: Client, target: str = "/ws", *fields: str) -> None:
    client.get(target, *HANDSHAKE, *fields)
    reply = await client.head()
    assert reply.status == 101
    assert reply.one("sec-websocket-accept") == accept_for(KEY.encode()).decode()
    assert reply.one("upgrade") == "websocket"


async def test_bytes_pass_untouched_both_ways(running: Running, upstream: Upstream) -> None:
    upstream.script = echo
    sent = os.urandom(8 << 20)
    async with running.client() as client:
        await open_tunnel(client)

        async def send() -> None:
            for start in range(0, len(sent), 77_777):
                client.send(sent[start : start + 77_777])
                await client.writer.drain()

        async with asyncio.TaskGroup() as group:
            group.create_task(send())
            received = await client.reader.readexactly(len(sent))
        assert hashlib.sha256(received).digest() == hashlib.sha256(sent).digest()


class _Echo(WebSocketHandler):  # type: ignore[misc]  # tornado is not typed here
    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        return subprotocols[-1] if subprotocols else None

    def get_compression_options(self) -> dict[str, Any]:
        return {}

    async def on_message(self, message: str | bytes) -> None:
        if message == "leave":
            self.close(4001, "done")
        else:
            await self.write_message(message, binary=isinstance(message, bytes))


async def test_a_real_client_and_server_understand_each_other(running: Running) -> None:
    """The server that notebooks run on, with a subprotocol and compressed frames."""
    (listening,) = bind_sockets(0, "127.0.0.1")
    server = HTTPServer(Application([("/x", _Echo)]))
    server.add_sockets([listening])
    running.route(plain_route(f"http://127.0.0.1:{listening.getsockname()[1]}"))
    client = await websocket_connect(
        f"ws://127.0.0.1:{running.port}/x", subprotocols=["a", "v1.kernel"], compression_options={}
    )
    assert client.selected_subprotocol == "v1.kernel"
    for message in ("hello", b"\x00" * 200_000):
        await client.write_message(message, binary=isinstance(message, bytes))
        assert await client.read_message() == message
    await client.write_message("leave")
    assert await client.read_message() is None
    assert (client.close_code, client.close_reason) == (4001, "done")
    client.close()
    server.stop()
    await server.close_all_connections()


async def test_what_is_sent_with_the_handshake_waits_for_it(
    running: Running, upstream: Upstream
) -> None:
    upstream.script = echo
    async with running.client() as client:
        client.get("/ws", *HANDSHAKE)
        client.send(b"early")
        assert (await client.head()).status == 101
        assert await client.reader.readexactly(5) == b"early"
        (tunnel,) = running.proxy.edge.tunnels
        assert (tunnel.received, tunnel.sent) == (5, 5)


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (ok(b"no", status="403 Forbidden"), 403),
        (ok(b"", "Sec-WebSocket-Version: 13", status="426 Upgrade Required"), 426),
        (ok(b"fine"), 200),
        (SWITCH.replace(b"websocket", b"h2c"), 502),
        (SWITCH.replace(b"Upgrade: websocket\r\n", b""), 502),
        (SWITCH.replace(b"Connection: Upgrade\r\n", b""), 502),
        (SWITCH.replace(b"Accept: ", b"Accept: x"), 502),
        (SWITCH.replace(b"Sec-WebSocket-Accept", b"X"), 502),
    ],
)
async def test_a_refused_handshake_is_a_response_and_nothing_is_tunnelled(
    reply: bytes, status: int, running: Running, upstream: Upstream
) -> None:
    got: list[bytes] = []

    async def refuse(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        writer.write(reply)
        got.append(await reader.read())

    upstream.script = refuse
    async with running.client() as client:
        client.get("/ws", *HANDSHAKE)
        client.send(b"GET /internal HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await client.response()).status == status
        assert await client.rest() == b""
    await eventually(lambda: bool(got))
    assert (upstream.connections, got) == (1, [b""])


async def test_a_handshake_may_say_that_it_has_no_body(
    running: Running, upstream: Upstream
) -> None:
    upstream.script = echo
    async with running.client() as client:
        await open_tunnel(client, "/ws", "Content-Length: 0")
        client.send(b"abc")
        assert await client.reader.readexactly(3) == b"abc"


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("POST", HANDSHAKE),
        ("GET", (*HANDSHAKE, "Content-Length: 3")),
        ("GET", (*HANDSHAKE, "Transfer-Encoding: chunked")),
        ("GET", (*HANDSHAKE, f"Sec-WebSocket-Key: {KEY}")),
        ("GET", tuple(f for f in HANDSHAKE if "Key" not in f)),
        ("GET", tuple(f.replace(KEY, "c2hvcnQ=") for f in HANDSHAKE)),
    ],
)
async def test_a_handshake_that_is_none_is_refused(
    method: str, fields: tuple[str, ...], running: Running, upstream: Upstream
) -> None:
    async with running.client() as client:
        client.get("/ws", *fields, method=method)
        if "Transfer-Encoding: chunked" in fields:
            client.send(b"0\r\n\r\n")
        if "Content-Length: 3" in fields:
            client.send(b"abc")
        assert (await client.response()).status == 400
    assert upstream.requests == []


@pytest.mark.parametrize(
    "fields",
    [
        ("Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: x"),
        ("Upgrade: websocket, h2c", "Connection: Upgrade", f"Sec-WebSocket-Key: {KEY}"),
        ("Upgrade: websocket", f"Sec-WebSocket-Key: {KEY}"),
        ("Upgrade: TLS/1.0", "Connection: Upgrade"),
    ],
)
async def test_any_other_upgrade_is_an_ordinary_request(
    fields: tuple[str, ...], running: Running, upstream: Upstream
) -> None:
    async with running.client() as client:
        assert (await client.ask("/", *fields)).status == 200
        assert (await client.ask("/")).status == 200
    assert upstream.requests[0].all("upgrade") == []
    assert upstream.requests[0].all("connection") == []


async def test_either_end_leaving_ends_both(running: Running, upstream: Upstream) -> None:
    upstream.script = echo
    async with running.client() as client:
        await open_tunnel(client)
    await asyncio.wait_for(upstream.closed.wait(), 60)
    await eventually(lambda: running.proxy.edge.connections == 0)

    async def leave(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        writer.write(SWITCH + b"bye")

    upstream.script = leave
    async with running.client() as client:
        await open_tunnel(client)
        assert await client.rest() == b"bye"
    await eventually(lambda: running.proxy.edge.connections == 0)


async def test_a_half_closed_tunnel_delivers_the_other_half(
    running: Running, upstream: Upstream
) -> None:
    async def answer_at_the_end(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        writer.write(SWITCH)
        writer.write(b"got " + await reader.read())

    upstream.script = answer_at_the_end
    async with running.client() as client:
        await open_tunnel(client)
        client.send(b"all")
        client.writer.write_eof()
        assert await client.rest() == b"got all"


async def test_a_revocation_cuts_open_sockets_and_no_others(
    running: Running, upstream: Upstream, hub: FakeHub
) -> None:
    upstream.script = echo
    running.route(guarded_route(upstream.target))
    hub.know("good", SERVER_ID, allowed("alice"))
    hub.know("other", SERVER_ID, allowed("bob"))
    async with running.client() as mine, running.client() as theirs:
        await open_tunnel(mine, "/user/alice/ws", COOKIE)
        await open_tunnel(theirs, "/user/alice/ws", COOKIE.replace("good", "other"))
        running.proxy.table.change(
            RouteChanges(
                epoch="e",
                base=running.number,
                number=running.number + 1,
                changes=[Revoke(revocation=Revocation(user="alice"))],
            )
        )
        assert await mine.rest() == b""
        theirs.send(b"still")
        assert await theirs.reader.readexactly(5) == b"still"


async def test_a_server_decided_anew_keeps_those_who_may_stay(
    running: Running, upstream: Upstream, hub: FakeHub
) -> None:
    upstream.script = echo
    running.route(guarded_route(upstream.target))
    hub.know("good", SERVER_ID, allowed("alice"))
    hub.know("shared", SERVER_ID, allowed("bob"))
    async with running.client() as mine, running.client() as theirs:
        await open_tunnel(mine, "/user/alice/ws", COOKIE)
        await open_tunnel(theirs, "/user/alice/ws", COOKIE.replace("good", "shared"))
        hub.verdicts = {
            key: verdict
            for key, verdict in hub.verdicts.items()
            if verdict.visitor is not None and verdict.visitor.name == "alice"
        }
        running.proxy.table.change(
            RouteChanges(
                epoch="e",
                base=running.number,
                number=running.number + 1,
                changes=[Revoke(revocation=Revocation(server_id=SERVER_ID))],
            )
        )
        assert await theirs.rest() == b""
        mine.send(b"still")
        assert await mine.reader.readexactly(5) == b"still"


async def test_an_open_socket_outlives_a_short_outage_of_the_hub_and_no_longer(
    short_dir: Path, hub: FakeHub, upstream: Upstream
) -> None:
    clock = ManualClock(SystemClock().now())
    upstream.script = echo
    hub.know("good", SERVER_ID, allowed("alice"))
    (short_dir / "p").mkdir()
    async with open_proxy(short_dir, hub, clock=clock, state_dir=short_dir / "p") as running:
        running.route(guarded_route(upstream.target))
        async with running.client() as client:
            await open_tunnel(client, "/user/alice/ws", COOKIE)
            hub.away = True
            clock.advance(890)
            running.proxy.deadlines.tick()
            client.send(b"still")
            assert await client.reader.readexactly(5) == b"still"
            clock.advance(20)
            assert await client.rest() == b""


async def test_a_token_in_the_query_opens_sockets_and_goes_no_further(
    running: Running, upstream: Upstream, hub: FakeHub
) -> None:
    seen: list[str] = []

    async def note(reader: Reader, writer: Writer) -> None:
        seen.append((await read_head(reader)).target)
        writer.write(SWITCH)
        await reader.read()

    upstream.script = note
    running.route(guarded_route(upstream.target))
    hub.know("good", SERVER_ID, allowed("alice"))
    async with running.client() as client:
        await open_tunnel(client, "/user/alice/ws?a=1&token=good&b=2")
    assert seen == ["/user/alice/ws?a=1&b=2"]
    async with running.client() as client:
        client.get("/user/alice/ws?token=bad", *HANDSHAKE)
        assert (await client.response()).status == 403


async def test_nothing_comes_before_the_answer_to_a_handshake(
    running: Running, upstream: Upstream
) -> None:
    async def hint_first(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + SWITCH + b"\x81\x02hi")
        await reader.read()

    upstream.script = hint_first
    running.route(plain_route(upstream.target))
    async with running.client() as client:
        await open_tunnel(client)
        assert await client.reader.readexactly(4) == b"\x81\x02hi"


async def test_a_proxy_that_ends_says_so_between_two_frames(
    short_dir: Path, hub: FakeHub, upstream: Upstream
) -> None:
    go = asyncio.Event()

    async def two_frames(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        writer.write(SWITCH + b"\x81\x03one\x81\x7e\x01")
        await go.wait()
        writer.write(b"\x00" + b"x" * 256 + b"\x81\x03two")
        await reader.read()

    upstream.script = two_frames
    async with open_proxy(short_dir, hub) as running:
        running.route(plain_route(upstream.target))
        async with running.client() as client:
            await open_tunnel(client)
            assert await client.reader.readexactly(8) == b"\x81\x03one\x81\x7e\x01"
            async with asyncio.TaskGroup() as group:
                group.create_task(running.proxy.edge.drain(0.1))
                await eventually(lambda: running.proxy.edge.draining)
                go.set()
                assert await client.rest() == b"\x00" + b"x" * 256 + CLOSE_RESTARTING
                await client.close()
        assert running.proxy.counters.socket_sent == 8 + 1 + 256
    await asyncio.wait_for(upstream.closed.wait(), 60)


async def test_a_request_and_a_socket_at_the_end_have_their_time_together(
    short_dir: Path, hub: FakeHub, upstream: Upstream
) -> None:
    go = asyncio.Event()

    async def answer_late(reader: Reader, writer: Writer) -> None:
        asked = await read_request(reader)
        if asked.one("upgrade"):
            writer.write(SWITCH)
        else:
            await go.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")
        await reader.read()

    upstream.script = answer_late
    async with open_proxy(short_dir, hub) as running:
        running.route(plain_route(upstream.target))
        edge = running.proxy.edge
        edge.limits = replace(edge.limits, leave_seconds=60)
        async with running.client() as socket, running.client() as client:
            await open_tunnel(socket)
            client.get("/late")
            await eventually(lambda: len(edge.exchanges) == 1)
            async with asyncio.TaskGroup() as group:
                group.create_task(edge.drain(60))
                # The socket is told while the request still has the rest of the time.
                assert await socket.rest() == CLOSE_RESTARTING
                await socket.close()
                go.set()
                assert (await client.response()).body == b"late"


async def test_a_socket_in_the_middle_of_a_frame_is_cut_at_last(
    short_dir: Path, hub: FakeHub, upstream: Upstream
) -> None:
    async def half_a_frame(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        writer.write(SWITCH + b"\x81\x05he")
        await reader.read()

    upstream.script = half_a_frame
    async with open_proxy(short_dir, hub) as running:
        running.route(plain_route(upstream.target))
        async with running.client() as client:
            await open_tunnel(client)
            await running.proxy.edge.drain(0.1)
            assert await client.rest() == b"\x81\x05he"


async def test_a_slow_reader_holds_the_writer_back(running: Running, upstream: Upstream) -> None:
    sent = 0

    async def pour(reader: Reader, writer: Writer) -> None:
        nonlocal sent
        await read_request(reader)
        writer.write(SWITCH)
        while sent < 128 << 20:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536

    upstream.script = pour
    async with running.client() as client:
        await open_tunnel(client)
        before = -1
        while sent != before:
            before = sent
            await asyncio.sleep(0.2)
        assert sent < 64 << 20

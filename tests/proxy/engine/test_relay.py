"""Requests and responses on their way through: framing, order, streaming, and what goes wrong."""

import asyncio
import hashlib
import os
import socket

import pytest
from msgspec.structs import replace
from proxy.running import Running, plain_route
from proxy.wire import Script, Upstream, ok, read_chunk, read_head, read_request

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter


def replies(*data: bytes, close: bool = False) -> Script:
    """Return a script that answers each request of a connection with the next of these."""

    async def script(reader: Reader, writer: Writer) -> None:
        for reply in data:
            await read_request(reader)
            writer.write(reply)
        if not close:
            await reader.read()

    return script


async def test_a_request_arrives_as_it_was_sent(running: Running, upstream: Upstream) -> None:
    async with running.client() as client:
        await client.ask("/a/../b//%7e?x=%2F&y", "Accept: */*", "X-Own: ü", "Origin: http://a")
    (request,) = upstream.requests
    assert request.start == "GET /a/../b//%7e?x=%2F&y HTTP/1.1"
    assert request.one("host") == "hub.test"
    assert request.one("accept") == "*/*"
    assert request.one("x-own") == "ü"
    assert request.one("origin") == "http://a"
    assert request.one("connection") is None


async def test_a_response_arrives_as_it_was_sent(running: Running, upstream: Upstream) -> None:
    upstream.respond = lambda _: ok(
        b"gone", "Server: own", "Set-Cookie: a=1; Path=/", "Set-Cookie: b=2", status="410 So Long"
    )
    async with running.client() as client:
        reply = await client.ask("/")
    assert reply.start == "HTTP/1.1 410 So Long"
    assert reply.body == b"gone"
    assert reply.all("set-cookie") == ["a=1; Path=/", "b=2"]
    assert reply.all("server") == ["own"]
    assert reply.all("date") == []


async def test_connections_are_kept_on_both_sides(running: Running, upstream: Upstream) -> None:
    async with running.client() as client:
        for _ in range(5):
            assert (await client.ask("/")).body == b"ok"
    async with running.client() as client:
        assert (await client.ask("/")).body == b"ok"
    assert upstream.connections == 1


async def test_pipelined_requests_are_answered_in_order(
    running: Running, upstream: Upstream
) -> None:
    upstream.respond = lambda request: ok(request.target.encode())
    async with running.client() as client:
        client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % n for n in range(3000)))
        for number in range(3000):
            assert (await client.response()).body == b"/%d" % number


@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
async def test_sized_bodies_pass_whole_both_ways(
    size: int, running: Running, upstream: Upstream
) -> None:
    upstream.respond = lambda request: ok(request.body)
    body = os.urandom(size)
    async with running.client() as client:
        client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b" % (size, body))
        assert (await client.response()).body == body
        assert (await client.ask("/again")).status == 200
    assert upstream.requests[0].one("content-length") == str(size)
    assert upstream.connections == 1


async def test_chunked_bodies_are_framed_anew(running: Running, upstream: Upstream) -> None:
    upstream.script = replies(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nX-Trailer: 1\r\n\r\n"
    )
    async with running.client() as client:
        client.send(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.send(b"4;a=b\r\nwxyz\r\n")
        client.send(b"0\r\nX-Trailer: 1\r\n\r\n")
        reply = await client.response()
    assert reply.body == b"abcde"
    assert reply.one("transfer-encoding") == "chunked"


async def test_an_old_client_gets_no_chunks(running: Running, upstream: Upstream) -> None:
    upstream.script = replies(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    )
    async with running.client() as client:
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        reply = await client.response()
    assert reply.one("transfer-encoding") is None
    assert reply.one("connection") == "close"
    assert reply.body == b"abc"


async def test_a_part_is_not_taken_for_the_whole_where_only_the_end_ends_it(
    running: Running, upstream: Upstream
) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    upstream.script = replies(head + b"5\r\na pa", close=True)
    async with running.client() as client:
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            await client.reader.read()


async def test_a_body_that_ends_with_the_connection_is_chunked(
    running: Running, upstream: Upstream
) -> None:
    upstream.script = replies(b"HTTP/1.0 200 OK\r\n\r\nall of it", close=True)
    async with running.client() as client:
        assert (await client.ask("/")).body == b"all of it"
        upstream.script = None
        assert (await client.ask("/")).body == b"ok"


@pytest.mark.parametrize(
    ("method", "reply"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
    ],
)
async def test_responses_without_a_body_end_with_their_head(
    method: str, reply: bytes, running: Running, upstream: Upstream
) -> None:
    upstream.script = replies(reply, ok())
    async with running.client() as client:
        await client.ask("/", method=method)
        assert (await client.ask("/")).body == b"ok"
    assert upstream.connections == 1


async def test_bytes_arrive_as_they_are_sent(running: Running, upstream: Upstream) -> None:
    """Server-sent events: the first one is there while the response goes on."""
    more = asyncio.Event()

    async def script(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
        writer.write(b"Transfer-Encoding: chunked\r\n\r\n")
        writer.write(b"9\r\ndata: 1\n\n\r\n")
        await more.wait()
        writer.write(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")

    upstream.script = script
    async with running.client() as client:
        client.get("/")
        await client.head()
        assert await read_chunk(client.reader) == b"data: 1\n\n"
        more.set()
        assert await read_chunk(client.reader) == b"data: 2\n\n"


async def test_a_client_that_waits_for_continue_gets_it(
    running: Running, upstream: Upstream
) -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        head = await read_head(reader)
        assert head.one("expect") == "100-continue"
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await reader.readexactly(3) == b"abc"
        writer.write(ok())

    upstream.script = script
    async with running.client() as client:
        client.get("/", "Content-Length: 3", "Expect: 100-continue", method="POST")
        assert (await client.response()).status == 100
        client.send(b"abc")
        assert (await client.response()).body == b"ok"


async def test_a_client_need_not_wait_for_a_target_that_never_says_continue(
    running: Running, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("carrel_proxy.engine.exchange.CONTINUE_SECONDS", 0.01)
    async with running.client() as client:
        for length in ("Content-Length: 8", "Transfer-Encoding: chunked"):
            client.get("/", length, "Expect: 100-continue", method="POST")
            assert (await client.response()).status == 100
            client.send(b"3\r\nabc\r\n" if "Length" in length else b"3\r\nabc\r\n0\r\n\r\n")
            assert (await client.response()).body == b"ok"
    assert [request.body for request in upstream.requests] == [b"3\r\nabc\r\n", b"abc"]


@pytest.mark.parametrize("said", [b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\nA: b\n\n", b"\x16\x03\x01"])
async def test_a_target_that_cannot_be_understood_is_not_waited_for(
    running: Running, upstream: Upstream, said: bytes
) -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        for byte in said:
            writer.write(bytes((byte,)))
        await reader.read()

    upstream.script = script
    async with running.client() as client:
        assert (await client.ask("/")).status == 502


async def test_a_final_answer_instead_of_continue_ends_the_connection(
    running: Running, upstream: Upstream
) -> None:
    """What comes next could be the body or a request: nobody can tell."""

    async def script(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        writer.write(ok(b"no", status="417 No"))
        await reader.read()

    upstream.script = script
    async with running.client() as client:
        client.get("/", "Content-Length: 30", "Expect: 100-continue", method="POST")
        reply = await client.response()
        assert (reply.status, reply.one("connection")) == (417, "close")
        client.send(b"GET /evil HTTP/1.1\r\nHost: h\r\n\r\n")
        assert await client.rest() == b""
    assert upstream.connections == 1


async def test_an_early_answer_ends_the_connection_and_the_rest_is_no_request(
    running: Running, upstream: Upstream
) -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        writer.write(ok(b"too much", status="413 Content Too Large"))
        await reader.read()

    upstream.script = script
    evil = b"GET /evil HTTP/1.1\r\nHost: h\r\n\r\n"
    async with running.client() as client:
        client.get("/", "Content-Length: 1000", method="POST")
        reply = await client.response()
        assert (reply.status, reply.body, reply.one("connection")) == (413, b"too much", "close")
        client.send(evil * 20)
        assert await client.rest() == b""
    assert upstream.connections == 1


async def test_a_thousand_connection_options_cost_no_more_than_their_bytes(
    running: Running, upstream: Upstream
) -> None:
    options = ", ".join(f"x-{n}" for n in range(1000))
    async with running.client() as client:
        assert (
            await client.ask("/", f"Connection: {options}", "X-7: 1", "X-Kept: 1")
        ).status == 200
    (request,) = upstream.requests
    assert (request.one("x-7"), request.one("x-kept")) == (None, "1")


async def test_early_hints_pass_and_unasked_continues_do_not(
    running: Running, upstream: Upstream
) -> None:
    upstream.script = replies(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + ok()
    )
    async with running.client() as client:
        client.get("/")
        hints = await client.response()
        assert (hints.status, hints.one("link")) == (103, "</a>")
        assert (await client.response()).status == 200


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n folded\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"<html>HTTP/0.9</html>\r\n\r\n",
        b"\x15\x03\x03\x00\x02\x02\x28\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 103 Early\r\n\r\n" * 11,
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000,
    ],
)
async def test_a_response_that_is_no_http_is_a_502(
    reply: bytes, running: Running, upstream: Upstream
) -> None:
    upstream.script = replies(reply)
    async with running.client() as client:
        client.get("/", "Accept: application/json")
        message = await client.response()
        while message.status == 103:
            message = await client.response()
        assert message.status == 502
        upstream.script = None
        assert (await client.ask("/")).body == b"ok"


async def test_a_response_cut_short_cuts_the_client_off(
    running: Running, upstream: Upstream
) -> None:
    upstream.script = replies(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", close=True)
    async with running.client() as client:
        client.get("/")
        assert (await client.head()).status == 200
        assert await client.rest() == b"half"


async def test_a_broken_chunk_cuts_the_client_off(running: Running, upstream: Upstream) -> None:
    more = asyncio.Event()

    async def script(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await more.wait()
        writer.write(b"xyz\r\n")
        await reader.read()

    upstream.script = script
    async with running.client() as client:
        client.get("/")
        await client.head()
        assert await read_chunk(client.reader) == b"abc"
        more.set()
        assert await client.rest() == b""


async def test_a_response_that_is_broken_from_the_start_is_a_502(
    running: Running, upstream: Upstream
) -> None:
    upstream.script = replies(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n")
    async with running.client() as client:
        assert (await client.ask("/")).status == 502


async def test_what_comes_after_a_response_reaches_nobody(
    running: Running, upstream: Upstream
) -> None:
    upstream.script = replies(ok(b"mine") + ok(b"poison"))
    async with running.client() as client:
        assert (await client.ask("/")).body == b"mine"
        upstream.script = None
        assert (await client.ask("/")).body == b"ok"
    assert upstream.connections == 2


async def test_an_unsolicited_response_reaches_nobody(running: Running, upstream: Upstream) -> None:
    async def script(reader: Reader, writer: Writer) -> None:
        await read_request(reader)
        writer.write(ok(b"mine"))
        await asyncio.sleep(0.05)
        writer.write(ok(b"poison"))
        await reader.read()

    upstream.script = script
    async with running.client() as client:
        assert (await client.ask("/")).body == b"mine"
        await asyncio.wait_for(upstream.closed.wait(), 60)
        upstream.script = None
        assert (await client.ask("/")).body == b"ok"


async def test_a_stale_connection_is_tried_again_once(running: Running, upstream: Upstream) -> None:
    async def serves_once(reader: Reader, writer: Writer) -> None:
        upstream.requests.append(await read_request(reader))
        writer.write(ok())
        upstream.requests.append(await read_request(reader))

    upstream.script = serves_once
    async with running.client() as client:
        assert (await client.ask("/1")).status == 200
        assert (await client.ask("/2")).status == 200
    assert [request.target for request in upstream.requests] == ["/1", "/2", "/2"]


async def test_a_post_is_never_sent_twice(running: Running, upstream: Upstream) -> None:
    async def serves_once(reader: Reader, writer: Writer) -> None:
        upstream.requests.append(await read_request(reader))
        writer.write(ok())
        upstream.requests.append(await read_request(reader))

    upstream.script = serves_once
    async with running.client() as client:
        assert (await client.ask("/1")).status == 200
        assert (await client.ask("/2", "Content-Length: 0", method="POST")).status == 503
    assert [request.target for request in upstream.requests] == ["/1", "/2"]


async def test_a_slow_client_holds_the_target_back(running: Running, upstream: Upstream) -> None:
    """Of a large response to a client that does not read, little is in the proxy."""
    size, sent = 64 << 20, 0

    async def script(reader: Reader, writer: Writer) -> None:
        nonlocal sent
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        block = b"x" * 65536
        for _ in range(size // len(block)):
            writer.write(block)
            await writer.drain()
            sent += len(block)
        await reader.read()

    upstream.script = script
    async with running.client() as client:
        client.get("/")
        await client.head()
        before = -1
        while sent != before:  # until it stands still
            before = sent
            await asyncio.sleep(0.2)
        assert sent < size // 2
        digest = hashlib.sha256()
        left = size
        while left:
            data = await client.reader.read(1 << 20)
            left -= len(data)
            digest.update(data)
        assert digest.hexdigest() == hashlib.sha256(b"x" * size).hexdigest()


async def test_a_slow_target_holds_the_client_back(running: Running, upstream: Upstream) -> None:
    go = asyncio.Event()
    size = 64 << 20

    async def script(reader: Reader, writer: Writer) -> None:
        await read_head(reader)
        await go.wait()
        await reader.readexactly(size)
        writer.write(ok())

    upstream.script = script
    async with running.client() as client:
        client.get("/", f"Content-Length: {size}", method="POST")
        sent, block = 0, b"y" * 65536
        while sent < size:
            client.send(block)
            try:
                await asyncio.wait_for(client.writer.drain(), 0.3)
            except TimeoutError:
                break
            sent += len(block)
        assert sent < size // 2
        go.set()
        client.send(block * ((size - sent - len(block)) // len(block)))
        assert (await client.response()).body == b"ok"


async def test_a_target_that_is_away_is_a_503(running: Running) -> None:
    free = socket.socket()
    free.bind(("127.0.0.1", 0))
    running.route(plain_route(f"http://127.0.0.1:{free.getsockname()[1]}"))
    async with running.client() as client:
        page = await client.ask("/", "Sec-Fetch-Mode: navigate")
        assert page.status == 503
        assert page.one("retry-after")
        assert (page.one("content-type") or "").startswith("text/html")
        api = await client.ask("/", "Accept: */*")
        assert (api.status, api.one("content-type")) == (503, "application/json")
    free.close()


async def test_another_target_is_taken_when_one_is_away(
    running: Running, upstream: Upstream
) -> None:
    free = socket.socket()
    free.bind(("127.0.0.1", 0))
    dead = f"http://127.0.0.1:{free.getsockname()[1]}"
    route = plain_route(dead)
    running.route(replace(route, targets=[dead, upstream.target]))
    async with running.client() as client:
        for _ in range(4):
            assert (await client.ask("/", method="POST")).status == 200
    free.close()


async def test_hop_by_hop_fields_end_here(running: Running, upstream: Upstream) -> None:
    upstream.respond = lambda _: ok(
        b"", "Connection: keep-alive, X-Hop", "X-Hop: 1", "Keep-Alive: timeout=5", "X-Kept: 1"
    )
    async with running.client() as client:
        reply = await client.ask(
            "/",
            "Connection: keep-alive, X-Mine, X-Forwarded-For, Host, Cookie",
            "X-Mine: 1",
            "Cookie: a=1",
            "Keep-Alive: 300",
            "TE: trailers",
            "Trailer: X",
            "Proxy-Authorization: x",
            "Upgrade: h2c",
            "HTTP2-Settings: AAA",
        )
    (request,) = upstream.requests
    gone = ("x-mine", "keep-alive", "te", "trailer", "proxy-authorization", "upgrade")
    assert [name for name in (*gone, "http2-settings", "connection") if request.all(name)] == []
    assert request.one("x-forwarded-for") == "127.0.0.1"
    assert request.one("cookie") == "a=1"
    assert (reply.one("x-hop"), reply.one("keep-alive"), reply.one("x-kept")) == (None, None, "1")


async def test_what_a_client_claims_about_itself_is_replaced(
    running: Running, upstream: Upstream
) -> None:
    async with running.client() as client:
        await client.ask(
            "/",
            "X-Forwarded-For: 6.6.6.6",
            "X-Forwarded-Proto: https",
            "X-Forwarded-Host: evil.test",
            "X-Forwarded-Prefix: /x",
            "X_Forwarded_For: 6.6.6.6",
            "Forwarded: for=6.6.6.6",
            "X-Real-IP: 6.6.6.6",
            "X-Carrel-User: {}",
            "X-Carrel-Secret: x",
            "X-Request-Id: mine",
            "X-Original-URL: /admin",
            "X-Scheme: https",
        )
        first = upstream.requests[0]
        assert first.one("x-forwarded-for") == "127.0.0.1"
        assert first.one("x-forwarded-proto") == "http"
        assert first.one("x-forwarded-host") == "hub.test"
        assert first.one("x-forwarded-port") == "80"
        assert b"6.6.6.6" not in first.raw_head
        assert b"Carrel" not in first.raw_head
        assert b"/admin" not in first.raw_head
        assert first.one("x-scheme") is None  # some applications believe it before the others
        await client.ask("/")
    ids = [request.one("x-request-id") for request in upstream.requests]
    assert "mine" not in ids
    assert len(set(ids)) == 2


async def test_health_is_answered_without_a_target(running: Running) -> None:
    running.route()
    async with running.client() as client:
        assert (await client.ask("/_carrel/health")).body == b'{"status":"ok"}'
        assert (await client.ask("/_chp_healthz")).status == 200
        assert (await client.ask("/elsewhere")).status == 404


async def test_a_prefix_without_its_slash_is_completed(
    running: Running, upstream: Upstream
) -> None:
    running.route(plain_route(upstream.target, "/services/x/"))
    async with running.client() as client:
        reply = await client.ask("/services/x?a=//b")
        assert (reply.status, reply.one("location")) == (302, "/services/x/?a=//b")
        post = await client.ask("/services/x", "Content-Length: 0", method="POST")
        assert (post.status, post.one("location")) == (308, "/services/x/")
    assert upstream.requests == []


async def test_a_connection_belongs_to_one_route(running: Running, upstream: Upstream) -> None:
    running.route(plain_route(upstream.target, "/a/"), plain_route(upstream.target, "/b/"))
    async with running.client() as client:
        await client.ask("/a/")
        await client.ask("/b/")
        await client.ask("/a/")
    assert upstream.connections == 2

"""Hostile messages, byte for byte: what is said to each, and what of it goes on. Never anything of
a message that is refused, however it is cut into pieces."""

import asyncio
import json
from pathlib import Path
from typing import Any

import h11
import httptools
import pytest
from proxy.running import Running
from proxy.wire import Message, Upstream, eventually

CORPUS: list[dict[str, str]] = json.loads(
    (Path(__file__).parents[1] / "corpus.json").read_text(encoding="utf-8")
)
PIECES = {"whole": 1 << 20, "bytes": 1, "sevens": 7}

REFUSED = {
    "400+close": {400},
    "501/400+close": {400, 501},
    "400/413+close": {400, 413},
    "400/505+close": {400, 505},
    "405/501+close": {405, 501},
    "505+close": {505},
    "505 or treat as 1.1": {505},
    "405": {405},
    "400": {400},
    "close": {400},
    "400+close (or accept, never forward verbatim)": {400},
    "drop underscore hdr or 400": {400},
    "400 (mismatch) or authority replaces Host": {400},
    "accept (at most 1 empty line) or 400": {400},
}
FORWARDED_AFTER_ALL = {"F28"}  # the field is dropped, and without it the message is a good one


def entries(*expectations: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "entry",
        [
            pytest.param(entry, id=entry["id"])
            for entry in CORPUS
            if entry["expect"] in expectations and entry["id"] not in FORWARDED_AFTER_ALL
        ],
    )


def entry_named(name: str) -> bytes:
    return next(entry["raw"].encode("latin-1") for entry in CORPUS if entry["id"] == name)


async def follow_up(running: Running, upstream: Upstream) -> None:
    """The next client gets its own answer, whatever came before."""
    upstream.respond = lambda request: ok_for(request)
    async with running.client() as client:
        reply = await client.ask("/canary")
        assert reply.body == b"/canary"


def ok_for(request: Message) -> bytes:
    body = request.target.encode("latin-1")
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


@pytest.mark.parametrize("size", PIECES.values(), ids=PIECES)
@entries(*REFUSED)
async def test_hostile_messages_are_refused_and_nothing_of_them_goes_on(
    entry: dict[str, str], size: int, running: Running, upstream: Upstream
) -> None:
    async with running.client() as client, asyncio.TaskGroup() as group:
        # The answer may come, and the connection end, before all of a long message was sent.
        group.create_task(client.send_in_pieces(entry["raw"].encode("latin-1"), size))
        reply = await client.response()
        assert reply.status in REFUSED[entry["expect"]], entry["why"]
        assert json.loads(reply.body)["status"] == reply.status
        assert reply.one("connection") == "close"
        assert await client.rest() == b""
    assert upstream.connections == 0
    await follow_up(running, upstream)


@pytest.mark.parametrize("size", PIECES.values(), ids=PIECES)
@pytest.mark.parametrize("name", ["K21", "L08"])
async def test_garbage_after_a_good_message_is_refused_after_its_answer(
    name: str, size: int, running: Running, upstream: Upstream
) -> None:
    async with running.client() as client:
        await client.send_in_pieces(entry_named(name), size)
        assert (await client.response()).status == 200
        client.writer.write_eof()
        assert (await client.response()).status == 400
        assert await client.rest() == b""
    assert len(upstream.requests) == 1
    await follow_up(running, upstream)


@pytest.mark.parametrize("size", PIECES.values(), ids=PIECES)
@pytest.mark.parametrize("name", ["K16", "K17"])
async def test_trailers_end_at_the_proxy(
    name: str, size: int, running: Running, upstream: Upstream
) -> None:
    async with running.client() as client:
        await client.send_in_pieces(entry_named(name), size)
        assert (await client.response()).status == 200
    (request,) = upstream.requests
    assert request.body == b""
    assert request.all("content-length") == []
    await follow_up(running, upstream)


@pytest.mark.parametrize("size", PIECES.values(), ids=PIECES)
async def test_a_field_with_an_underscore_is_dropped(
    size: int, running: Running, upstream: Upstream
) -> None:
    async with running.client() as client:
        await client.send_in_pieces(entry_named("F28"), size)
        assert (await client.response()).status == 200
    assert b"_" not in upstream.requests[0].raw_head


@pytest.mark.parametrize("size", PIECES.values(), ids=PIECES)
async def test_a_body_that_looks_like_a_request_is_a_body(
    size: int, running: Running, upstream: Upstream
) -> None:
    async with running.client() as client:
        await client.send_in_pieces(entry_named("F29"), size)
        assert (await client.response()).status == 200
    (request,) = upstream.requests
    assert len(request.body) == 45


@pytest.mark.parametrize("size", PIECES.values(), ids=PIECES)
async def test_two_requests_are_two_requests(
    size: int, running: Running, upstream: Upstream
) -> None:
    upstream.respond = ok_for
    async with running.client() as client:
        await client.send_in_pieces(entry_named("F30"), size)
        assert (await client.response()).body == b"/"
        assert (await client.response()).body == b"/hub/admin"
    assert [request.body for request in upstream.requests] == [b"", b""]


@pytest.mark.parametrize("size", PIECES.values(), ids=PIECES)
async def test_an_encoded_line_break_stays_encoded(
    size: int, running: Running, upstream: Upstream
) -> None:
    async with running.client() as client:
        await client.send_in_pieces(entry_named("L30"), size)
        assert (await client.response()).status == 200
    assert upstream.requests[0].target == "/a%0d%0aX:%20y"


def test_every_message_of_the_corpus_is_tried() -> None:
    special = {"K16", "K17", "K21", "L08", "F28", "F29", "F30", "L30"}
    refused = {entry["id"] for entry in CORPUS if entry["expect"] in REFUSED}
    assert refused | special == {entry["id"] for entry in CORPUS}


GOOD = [
    b"GET /a?b HTTP/1.1\r\nHost: hub.test\r\nAccept: */*\r\n\r\n",
    b"HEAD / HTTP/1.0\r\n\r\n",
    b"POST /p HTTP/1.1\r\nHost: h:1\r\nContent-Length: 3\r\nConnection: x-a\r\nX-A: b\r\n\r\nabc",
    b"PUT /q HTTP/1.1\r\nHost: [::1]:80\r\nTransfer-Encoding: Chunked\r\n\r\n"
    b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nT: 1\r\n\r\n",
    b"DELETE /r HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n",
    b"GET /s HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTrailer: x\r\n\r\nhello",
]


@pytest.mark.parametrize("raw", GOOD)
async def test_what_goes_on_means_the_same_to_other_parsers(
    raw: bytes, running: Running, upstream: Upstream
) -> None:
    """Two libraries that disagree on much read one request, and one body, in what we write."""
    seen = bytearray()

    async def record(reader: Any, writer: Any) -> None:
        while data := await reader.read(65536):
            seen.extend(data)
            if complete_in_httptools(bytes(seen)):
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    upstream.script = record
    async with running.client() as client:
        client.send(raw)
        assert (await client.response("HEAD")).status == 204
    await eventually(lambda: bool(seen))
    assert bodies_in_h11(bytes(seen)) == bodies_in_httptools(bytes(seen))
    assert len(bodies_in_h11(bytes(seen))) == 1


class _Bodies:
    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.complete = 0

    def on_message_begin(self) -> None:
        self.bodies.append(b"")

    def on_body(self, data: bytes) -> None:
        self.bodies[-1] += data

    def on_message_complete(self) -> None:
        self.complete += 1


def complete_in_httptools(raw: bytes) -> bool:
    bodies = _Bodies()
    httptools.HttpRequestParser(bodies).feed_data(raw)
    return bodies.complete > 0


def bodies_in_httptools(raw: bytes) -> list[bytes]:
    bodies = _Bodies()
    httptools.HttpRequestParser(bodies).feed_data(raw)
    return bodies.bodies


def bodies_in_h11(raw: bytes) -> list[bytes]:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(raw)
    bodies: list[bytes] = []
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            bodies.append(b"")
        elif isinstance(event, h11.Data):
            bodies[-1] += bytes(event.data)
        elif event in (h11.NEED_DATA, h11.PAUSED) or isinstance(event, h11.ConnectionClosed):
            return bodies

"""The corpus with faults of its own: whatever goes on is read alike by others, is no more than the
client asked, and nobody else gets anything of it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import h11
import httptools
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from proxy.hub import FakeHub
from proxy.running import Running, open_proxy, plain_route
from proxy.wire import Upstream, open_upstream

from support.mutations import TOKENS, messages

Request = tuple[bytes, bytes, bytes]
"""Method, target, body."""
MESSAGES = messages()
METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH"))


class _Reader:
    """What httptools makes of a stream of requests."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.broken = self.upgraded = False
        self._parser = httptools.HttpRequestParser(self)
        self._target = self._body = b""

    def feed(self, data: bytes) -> None:
        if self.broken:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.broken = self.upgraded = True  # what follows is no HTTP
        except httptools.HttpParserError:
            self.broken = True

    def on_message_begin(self) -> None:
        self._target = self._body = b""

    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_body(self, part: bytes) -> None:
        self._body += part

    def on_message_complete(self) -> None:
        self.requests.append((self._parser.get_method(), self._target, self._body))


def read_with_h11(data: bytes) -> tuple[list[Request], bytes]:
    """Return the whole requests in a stream, and the rest, which h11 refuses or finds too short."""
    requests: list[Request] = []
    while True:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        connection.receive_data(data)
        body = b""
        try:
            head = connection.next_event()
            if not isinstance(head, h11.Request):
                return requests, data
            while isinstance(part := connection.next_event(), h11.Data):
                body += bytes(part.data)
        except h11.RemoteProtocolError:
            return requests, data
        if not isinstance(part, h11.EndOfMessage):
            return requests, data
        requests.append((head.method, head.target, body))
        data = connection.trailing_data[0]


@dataclass(repr=False)
class Recorder:
    """A target that keeps each connection's bytes, and answers what it takes for a request."""

    streams: dict[_Reader, bytearray] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)

    async def script(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen = _Reader()
        stream = self.streams[seen] = bytearray()
        while data := await reader.read(65536):
            stream += data
            known = len(seen.requests)
            seen.feed(data)
            self.requests += seen.requests[known:]
            if seen.broken:
                writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
                break
            for method, target, _ in seen.requests[known:]:
                body = b"" if method == b"HEAD" else target
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(target), body)
                )

    def take(self) -> list[Request]:
        """Return the requests since the last call, after a second reader had a look at them."""
        for seen, stream in list(self.streams.items()):
            others, rest = read_with_h11(bytes(stream))
            assert others[: len(seen.requests)] == seen.requests
            # One is broken off by a method of nobody's (its body may still be on its way), or by a
            # handshake, which it does not go beyond.
            if seen.broken:
                further = others[len(seen.requests) :]
                method = further[0][0] if further else rest.partition(b" ")[0]
                assert seen.upgraded or method not in METHODS
            else:
                assert others == seen.requests
            if seen.broken or len(stream) > 1 << 16:
                del self.streams[seen]
        taken, self.requests = self.requests, []
        return [request for request in taken if request[1] != b"/hub/health"]


PLACE = st.integers(0, 400)
FAULT = st.one_of(
    st.tuples(
        st.just("insert"), PLACE, st.sampled_from(TOKENS) | st.binary(min_size=1, max_size=2)
    ),
    st.tuples(st.just("double"), PLACE, st.integers(1, 60)),
    st.tuples(st.just("delete"), PLACE, st.integers(1, 60)),
    st.tuples(st.just("swap"), st.integers(0, 8), st.integers(0, 8)),
)


def with_fault(data: bytes, fault: tuple[str, int, bytes | int]) -> bytes:
    kind, place, more = fault
    place = min(place, len(data))
    if isinstance(more, bytes):
        return data[:place] + more + data[place:]
    if kind == "double":
        return data[: place + more] + data[place:]
    if kind == "delete":
        return data[:place] + data[place + more :]
    lines = data.split(b"\r\n")
    one, other = place % len(lines), more % len(lines)
    lines[one], lines[other] = lines[other], lines[one]
    return b"\r\n".join(lines)


@pytest.fixture
async def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
async def recorded(
    short_dir: Path, hub: FakeHub, recorder: Recorder
) -> AsyncIterator[tuple[Running, Upstream]]:
    async with open_upstream() as upstream, open_proxy(short_dir, hub) as running:
        upstream.script = recorder.script
        running.route(plain_route(upstream.target))
        yield running, upstream


@pytest.mark.filterwarnings("ignore:Generating overly large repr")  # of fixtures; nobody reads it
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    parts=st.lists(st.sampled_from(range(len(MESSAGES))), min_size=1, max_size=2),
    faults=st.lists(FAULT, max_size=4),
    size=st.sampled_from([1 << 20, 1 << 20, 7, 1]),
)
async def test_what_goes_on_is_read_alike_and_is_the_clients_own(
    recorded: tuple[Running, Upstream],
    recorder: Recorder,
    parts: list[int],
    faults: list[tuple[str, int, bytes | int]],
    size: int,
) -> None:
    running, _ = recorded
    sent = b"".join(MESSAGES[part] for part in parts)
    for fault in faults:
        sent = with_fault(sent, fault)
    async with running.client() as client:
        await client.send_in_pieces(sent, size)
        with contextlib.suppress(RuntimeError, OSError):  # it may have been reset meanwhile
            client.writer.write_eof()
        answer = await client.rest()
    assert not answer or answer.startswith(b"HTTP/1.1 ")
    passed = recorder.take()
    allowed = _Reader()
    allowed.feed(sent)
    assert len(passed) <= max(len(read_with_h11(sent)[0]), len(allowed.requests))
    async with running.client() as client:
        assert (await client.ask("/canary")).body == b"/canary"
    assert [target for _, target, _ in recorder.take()] == [b"/canary"]

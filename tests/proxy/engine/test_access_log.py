"""Which requests are logged, as what, and what never is."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from proxy.hub import FakeHub, allowed
from proxy.running import KEY, SERVER_ID, Running, guarded_route, open_proxy, plain_route
from proxy.wire import Upstream, eventually, ok, open_upstream

from carrel_proxy.core.websocket import accept_for
from carrel_shared.lines import LineWriter
from carrel_shared.service_auth import service_headers

WS_KEY = "dGhlIHNhbXBsZSBub25jZQ=="


class Lines(LineWriter):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__(-1)
        self.texts: list[str] = []

    def write(self, text: str) -> int:
        self.texts.append(text)
        return len(text)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(text) for text in self.texts]


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with open_upstream() as upstream:
        yield upstream


Opens = Callable[..., Any]


@pytest.fixture
def opened(short_dir: Path, hub: FakeHub, lines: Lines) -> Opens:
    @asynccontextmanager
    async def opened(**settings: Any) -> AsyncIterator[Running]:
        values: dict[str, Any] = {"access_log": "all", "log_json": True} | settings
        async with open_proxy(short_dir, hub, lines=lines, **values) as running:
            yield running

    return opened


async def test_a_request_is_one_line_with_what_there_is_to_know(
    opened: Opens, upstream: Upstream, hub: FakeHub, lines: Lines
) -> None:
    hub.know("good", SERVER_ID, allowed("ålice"))
    async with opened() as running, running.client() as client:
        running.route(guarded_route(upstream.target))
        client.get(
            "/user/alice/api?type=file",
            "Authorization: token good",
            "Content-Length: 3",
            "User-Agent: curl/8",
            "Referer: https://hub.test/hub/home?next=/x",
            method="PUT",
        )
        client.send(b"abc")
        await client.response()
    (event,) = lines.events
    assert event.pop("request_id") == upstream.requests[0].one("x-request-id")
    assert event.pop("timestamp")
    assert 0 <= event.pop("seconds") < 60
    assert event == {
        "event": "request",
        "service": "proxy",
        "level": "info",
        "method": "PUT",
        "path": "/user/alice/api?type=file",
        "status": 200,
        "received": 3,
        "sent": 2,
        "route": "/user/alice/",
        "user": "\\xc3\\xa5lice",
        "peer": "127.0.0.1",
        "referer": "https://hub.test/hub/home?next=/x",
        "agent": "curl/8",
    }


async def test_people_get_text(opened: Opens, upstream: Upstream, lines: Lines) -> None:
    async with opened(log_json=False) as running, running.client() as client:
        running.route(plain_route(upstream.target))
        await client.ask("/x", "User-Agent: Mozilla/5.0 (X11)")
    (text,) = lines.texts
    assert ' proxy  INFO    request method=GET path=/x peer=127.0.0.1 request_id="'[:-1] in text
    assert 'agent="Mozilla/5.0 (X11)"' in text
    assert text.endswith("\n")
    assert text.count("\n") == 1


async def test_a_socket_is_one_line_at_its_end(
    opened: Opens, upstream: Upstream, lines: Lines
) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: " + accept_for(WS_KEY.encode()) + b"\r\n\r\n"
        )
        while data := await reader.read(100):
            writer.write(data)

    upstream.script = echo
    async with opened() as running:
        running.route(plain_route(upstream.target))
        async with running.client() as client:
            client.get(
                "/ws?token=canary",
                "Connection: Upgrade",
                "Upgrade: websocket",
                f"Sec-WebSocket-Key: {WS_KEY}",
                "Sec-WebSocket-Version: 13",
            )
            await client.head()
            client.send(b"four")
            await client.reader.readexactly(4)
            assert lines.texts == []
        await eventually(lambda: bool(lines.texts))
    (event,) = lines.events
    assert (event["event"], event["status"], event["path"]) == (
        "websocket",
        101,
        "/ws?token=[hidden]",
    )
    assert (event["received"], event["sent"]) == (4, 4)


async def test_what_fails_is_logged_where_failures_alone_are(
    opened: Opens, upstream: Upstream, lines: Lines
) -> None:
    async with opened(access_log="errors") as running:
        running.route(plain_route(upstream.target, "/a/"), plain_route("http://127.0.0.1:1", "/b/"))
        upstream.respond = lambda request: ok(status=f"{request.target[3:]} Word")
        async with running.client() as client:
            for status in (200, 302, 404, 500):
                await client.ask(f"/a/{status}")
            await client.ask("/b/")
            await client.ask("/nothing")
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
            refused = await client.response()
    events = lines.events
    assert [(event["event"], event["status"], event.get("reason")) for event in events] == [
        ("request", 500, None),
        ("request", 503, "target_away"),
        ("request_refused", 400, None),
    ]
    assert "Host" in events[2]["why"]
    assert events[2]["request_id"] == json.loads(refused.body)["request_id"]


async def test_a_response_that_is_cut_is_logged(
    opened: Opens, upstream: Upstream, lines: Lines
) -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")

    upstream.script = half
    async with opened(access_log="errors") as running, running.client() as client:
        running.route(plain_route(upstream.target))
        client.get("/")
        await client.rest()
    (event,) = lines.events
    assert (event["status"], event["reason"], event["sent"]) == (200, "cut", 4)


async def test_one_client_cannot_flood_the_log(
    opened: Opens, lines: Lines, capsys: pytest.CaptureFixture[str]
) -> None:
    async with opened(access_log_rate=20) as running:
        async with running.client() as client:
            for _ in range(30):
                await client.ask("/nothing")
            running.proxy.edge.access_log.tick()
            await client.ask("/nothing")
        totals = running.proxy.counted.totals()
    written = len(lines.texts)
    assert 3 <= written <= 12, "two a tick, and a tick or some may have passed"
    assert totals.log_left_out == 31 - written


async def test_how_many_were_left_out_is_said_now_and_then(opened: Opens, lines: Lines) -> None:
    with structlog.testing.capture_logs() as logs:
        async with opened(access_log_rate=2) as running, running.client() as client:
            for _ in range(5):
                await client.ask("/nothing")
            for _ in range(3):
                running.proxy.edge.access_log.tick()
    said = [entry["count"] for entry in logs if entry["event"] == "access_log_left_out"]
    assert len(said) == 1
    assert said[0] >= 1


async def test_off_keeps_nothing(opened: Opens, upstream: Upstream, lines: Lines) -> None:
    async with opened(access_log="off") as running, running.client() as client:
        assert running.proxy.edge.access_log is None
        await client.ask("/nothing")
    assert lines.texts == []


async def test_a_blocked_log_holds_up_no_request(short_dir: Path, hub: FakeHub) -> None:
    reader, writer = os.pipe()
    try:
        blocked = LineWriter(writer, most_waiting=1000)
        values: dict[str, Any] = {"access_log": "all", "access_log_rate": 100_000}
        async with open_proxy(short_dir, hub, lines=blocked, **values) as running:
            async with running.client() as client:
                for _ in range(1000):
                    assert (await client.ask("/nothing")).status == 404
            assert running.proxy.counted.totals().log_left_out > 0
    finally:
        os.close(reader)
        blocked.settle(5)
        os.close(writer)


CANARY = "cAnary0123456789abcdefcAnary"


async def test_no_secret_gets_into_log_metrics_or_pages(
    opened: Opens,
    upstream: Upstream,
    hub: FakeHub,
    lines: Lines,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A secret in every place that a request has, through every way a request can end."""
    fields = (
        f"Authorization: token {CANARY}",
        f"Cookie: jupyterhub-session-id={CANARY}; carrel-session-{SERVER_ID}={CANARY}",
        f"Referer: https://eve:{CANARY}@hub.test/hub/login?next=%2Fx%3Ftoken%3D{CANARY}",
        f"X-XSRFToken: {CANARY}",
        f"Proxy-Authorization: Basic {CANARY}",
        f"X-Carrel-Secret: {CANARY}",
        f"X-Forwarded-For: {CANARY}",
        f"X-Api-Key: {CANARY}",
        f"Sec-WebSocket-Protocol: v1.token.websocket.jupyter.org.{CANARY}",
    )
    query = (
        f"?token={CANARY}&code={CANARY}&state={CANARY}&_xsrf={CANARY}&next=/x?token={CANARY}"
        f"&{CANARY}&t={CANARY}"
    )
    paths = (
        *("/good/", "/status/500", "/bad/", "/away/", "/cut/", "/nothing/", "/good"),
        *("/user/alice/api", "/user/alice/lab", "/user/alice/oauth_callback"),
        *("/user/alice/logout", "/user/bob/api", "/good/../x/%2e%2e/"),
        *(f"/hub/sign-in/{CANARY}", f"/good/;token={CANARY}"),
    )

    def respond(request: Any) -> bytes:
        if request.target.startswith("/status/"):
            return ok(CANARY.encode(), f"Set-Cookie: a={CANARY}", status=f"500 {CANARY}")
        if request.target.startswith("/bad/"):
            return f"HTTP/1.1 200 OK\r\n{CANARY} {CANARY}\r\n\r\n".encode()
        if request.target.startswith("/cut/"):
            return f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{CANARY}\r\n".encode()
        return ok()

    upstream.respond = respond
    hub.know(CANARY, SERVER_ID, allowed())
    seen = []
    async with opened(trusted_peers=["127.0.0.1/32"]) as running:
        running.route(
            *(
                plain_route(upstream.target, f"/{name}/")
                for name in ("good", "status", "bad", "cut")
            ),
            guarded_route(upstream.target),
            guarded_route(upstream.target, "/user/bob/", "ba9876543210"),
            plain_route("http://127.0.0.1:1", "/away/"),
        )
        requests = _requests(paths, query, fields)
        requests += [
            f"GET /{CANARY} HTTP/1.1\r\nHost: a\r\nHost: {CANARY}\r\n\r\n",
            f"GET /{CANARY} HTTP/1.1\r\nHost: a\r\n{CANARY}\x01: x\r\n\r\n",
            f"{CANARY} {CANARY} {CANARY}\r\n\r\n",
            f"POST /good/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: {CANARY}\r\n\r\n",
            f"POST /good/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{CANARY}\r\n",
            f"TRACE /{query} HTTP/1.1\r\nHost: a\r\nCookie: {CANARY}\r\n\r\n",
        ]
        for away in (False, True):
            hub.away = away
            for request in requests:
                async with running.client() as client:
                    client.send(request.encode("latin-1"))
                    client.writer.write_eof()
                    seen.append((await client.rest()).decode("latin-1"))
        text = await running.proxy.metrics_text()
        transport = httpx.ASGITransport(running.proxy.control_app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://control", headers=service_headers(KEY)
        ) as api:
            text += (await api.get("/control/v1/counters")).text
    assert len(lines.texts) > len(requests)
    log = "".join(lines.texts) + "".join(capsys.readouterr())
    assert "resync_asked" in log, "the general log is looked at too"
    assert CANARY.lower() not in log.lower()
    assert CANARY.lower() not in text.lower()
    own = [page for page in seen if "request_id" in page or "Request " in page]
    assert len(own) > 20
    assert not any(CANARY in page.partition("\r\n\r\n")[2] for page in own)


def _requests(paths: tuple[str, ...], query: str, fields: tuple[str, ...]) -> list[str]:
    end = "\r\n".join(fields)
    return [
        f"{method} {path}{query} HTTP/1.1\r\nHost: hub.test\r\n{extra}{end}\r\n\r\n"
        for path in paths
        for method in ("GET", "DELETE")
        for extra in ("", "Accept: text/html\r\n", "Sec-Fetch-Mode: navigate\r\n")
    ]

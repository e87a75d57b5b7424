"""Requests in the log and by their id, in configurable-http-proxy's place."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from proxy.chp.inside import ROUTES, running
from proxy.wire import Client, Upstream, connect, open_upstream

from carrel_proxy.chp.options import read_options
from carrel_proxy.chp.program import ChpProxy
from carrel_shared.addresses import TcpAddress, bind_address
from carrel_shared.lines import LineWriter

CANARY = "cAnary0123456789abcdefcAnary"


class Lines(LineWriter):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__(-1)
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with open_upstream() as upstream:
        yield upstream


@asynccontextmanager
async def client_of(lines: Lines, *arguments: str) -> AsyncIterator[Client]:
    options = read_options(arguments, {"CONFIGPROXY_AUTH_TOKEN": "t"})
    proxy = ChpProxy(options, lines=lines)
    listening = bind_address(TcpAddress("127.0.0.1", 0))
    await proxy.start([listening], None)
    try:
        async with connect(listening.getsockname()[1]) as client:
            yield client
    finally:
        await proxy.stop()


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        ([], 0),
        (["--log-level", "debug"], 2),
        (["--access-log", "all"], 2),
        (["--access-log", "errors"], 1),
        (["--log-level", "debug", "--access-log", "off"], 0),
    ],
)
async def test_requests_are_logged_as_options_say(
    arguments: list[str], lines: int, upstream: Upstream
) -> None:
    kept = Lines()
    async with client_of(kept, "--default-target", upstream.target, *arguments) as client:
        await client.ask("/x")
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        await client.response()
    assert kept.text.count("\n") == lines


async def test_no_secret_is_logged(upstream: Upstream) -> None:
    kept = Lines()
    fields = (f"Authorization: token {CANARY}", f"Cookie: a={CANARY}", f"Referer: /?token={CANARY}")
    arguments = ("--access-log", "all", "--default-target", upstream.target)
    async with client_of(kept, *arguments) as client:
        for path in ("/user/alice/lab", "/hub/login", "/x%2e%2e/"):
            await client.ask(f"{path}?token={CANARY}&next=%2F%3Fcode%3D{CANARY}", *fields)
    assert kept.text.count("\n") == 3
    assert CANARY not in kept.text


async def test_an_id_goes_on_as_it_came_and_none_is_made(upstream: Upstream) -> None:
    kept = Lines()
    arguments = ("--access-log", "all", "--default-target", upstream.target)
    async with client_of(kept, *arguments) as client:
        await client.ask("/", "X-Request-Id: any thing <at> all")
        await client.ask("/", "X-Request-Id: a-good-one")
        await client.ask("/")
    sent = [request.one("x-request-id") for request in upstream.requests]
    assert sent == ["any thing <at> all", "a-good-one", None]
    first, second, third = kept.text.splitlines()
    assert "request_id=a-good-one" in second
    assert "any" not in first
    assert "request_id=" in third


async def test_the_page_of_an_error_names_the_request() -> None:
    async with client_of(Lines()) as client:
        page = await client.ask("/nothing", "X-Request-Id: a-good-one")
    assert b"Request a-good-one" in page.body


async def test_what_has_no_route_is_logged_without_its_secrets(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with running() as chp, chp.client() as client:
        assert (await client.ask(f"/user/nobody/lab?token={CANARY}")).status == 404
    log = "".join(capsys.readouterr())
    (line,) = [line for line in log.splitlines() if "no_route" in line]
    assert "/user/nobody/lab" in line
    assert CANARY not in line


async def test_calls_of_the_api_that_are_refused_are_logged(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with running() as chp:
        await chp.add("/a", f"http://127.0.0.1:9/base?t={CANARY}")
        await chp.api.post(ROUTES + "/b", json={"target": "nowhere"})
        await chp.api.delete(ROUTES + "/gone")
        await chp.api.get(ROUTES, headers={"Authorization": f"token {CANARY}"})
    log = "".join(capsys.readouterr())
    refused = [line for line in log.splitlines() if "api_request_refused" in line]
    for line, words in zip(
        refused,
        (("400", "POST", "/b"), ("404", "DELETE", "/gone"), ("403", "GET", "token is missing")),
        strict=True,
    ):
        assert all(word in line for word in words)
    (added,) = [line for line in log.splitlines() if "route_added" in line]
    assert "http://127.0.0.1:9/base" in added
    assert CANARY not in log

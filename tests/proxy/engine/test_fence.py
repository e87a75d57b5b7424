"""Servers that share a domain: what of a browser's cookies and of an origin each of them gets."""

import pytest
from proxy.hub import FakeHub, allowed
from proxy.running import SERVER_ID, Running, guarded_route, plain_route
from proxy.wire import Message, Upstream, ok, open_upstream

from carrel_proxy.core.cookies import Fence
from carrel_proxy.errors import BadTargetError

CLIENT = "jupyterhub-user-alice"
NAMED_ID = "ba9876543210"
COOKIE, NAMED_COOKIE = f"carrel-session-{SERVER_ID}", f"carrel-session-{NAMED_ID}"


async def test_a_named_server_is_not_shown_the_default_ones_token(
    running: Running, upstream: Upstream, hub: FakeHub
) -> None:
    """A browser sends a cookie of `/user/alice/` to `/user/alice/proj/` too."""
    async with open_upstream() as named:
        running.route(
            guarded_route(upstream.target),
            guarded_route(named.target, "/user/alice/proj/", NAMED_ID),
        )
        hub.know("default", SERVER_ID, allowed("alice"))
        hub.know("named", NAMED_ID, allowed("alice"))
        cookies = f"Cookie: {NAMED_COOKIE}=named; {COOKIE}=default; _xsrf=n; _xsrf=d"
        async with running.client() as client:
            assert (await client.ask("/user/alice/proj/lab", cookies)).status == 200
            only_default = f"Cookie: {COOKIE}=default"
            assert (await client.ask("/user/alice/proj/lab", only_default)).status == 403
        assert [request.one("cookie") for request in named.requests] == ["_xsrf=n; _xsrf=d"]
    assert upstream.requests == []


async def test_a_stock_named_server_is_not_shown_the_default_ones_token(
    running: Running, upstream: Upstream
) -> None:
    running.route(
        plain_route(
            upstream.target, "/user/alice/proj/", server=True, stock_client_id=f"{CLIENT}-proj"
        )
    )
    cookies = f"{CLIENT}-proj=own; {CLIENT}=default; {CLIENT}-proj-oauth-state=s; _xsrf=1"
    async with running.client() as client:
        await client.ask("/user/alice/proj/", f"Cookie: {cookies}")
    own = f"_xsrf=1; {CLIENT}-proj=own; {CLIENT}-proj-oauth-state=s"
    assert upstream.requests[0].one("cookie") == own


async def test_a_stock_server_keeps_its_sign_in_and_learns_no_other(
    running: Running, upstream: Upstream
) -> None:
    running.route(plain_route(upstream.target, "/user/alice/", server=True, stock_client_id=CLIENT))
    upstream.respond = lambda request: ok(
        b"",
        f"Set-Cookie: {CLIENT}=token; Path=/user/alice/; HttpOnly",
        f"Set-Cookie: {CLIENT}-oauth-state=; Path=/; Max-Age=0",
        "Set-Cookie: jupyterhub-user-bob=evil; Path=/user/alice/",
        "Set-Cookie: jupyterhub-session-id=evil; Path=/user/alice/",
        f"Set-Cookie: {COOKIE}=evil; Path=/user/alice/",
    )
    async with running.client() as client:
        sent = f"Cookie: {CLIENT}=token; jupyterhub-session-id=5e55; jupyterhub-hub-login=no"
        reply = await client.ask("/user/alice/", sent)
    assert reply.all("set-cookie") == [
        f"{CLIENT}=token; HttpOnly; Path=/user/alice/",
        f"{CLIENT}-oauth-state=; Max-Age=0; Path=/user/alice/",
    ]
    told = Fence(b"/user/alice/", CLIENT.encode()).session(b"5e55").decode()
    assert upstream.requests[0].one("cookie") == f"{CLIENT}=token; jupyterhub-session-id={told}"


@pytest.mark.parametrize(
    "route",
    [
        plain_route("unix:/x", "/services/x/", stock_client_id="service-x"),
        plain_route("unix:/x", "/user/a/", server=True, stock_client_id="a b"),
        guarded_route("unix:/x", stock_client_id=CLIENT),
    ],
)
async def test_a_stock_client_belongs_to_a_server_that_signs_people_in(
    running: Running, route: object
) -> None:
    with pytest.raises(BadTargetError, match=r"stock_client_id|signs people in"):
        running.route(route)  # type: ignore[arg-type]


async def test_what_is_refused_is_logged_by_its_name(
    running: Running, upstream: Upstream, capsys: pytest.CaptureFixture[str]
) -> None:
    running.route(plain_route(upstream.target, "/user/alice/", server=True))
    upstream.respond = lambda request: ok(b"", "Set-Cookie: carrel-x=s3cret", "Set-Cookie: a=b")
    async with running.client() as client:
        for _ in range(3):
            assert (await client.ask("/user/alice/")).all("set-cookie") == ["a=b"]
    log = capsys.readouterr().out
    assert log.count("cookies_refused") == 1
    assert "carrel-x" in log
    assert "s3cret" not in log


async def test_two_hundred_cookies_in_one_answer(running: Running, upstream: Upstream) -> None:
    running.route(plain_route(upstream.target, "/user/alice/", server=True))
    lines = [f"Set-Cookie: c{number}={number}; Path=/" for number in range(200)]
    upstream.respond = lambda request: ok(b"", *lines)
    async with running.client() as client:
        reply = await client.ask("/user/alice/")
    assert reply.all("set-cookie") == [f"c{n}={n}; Path=/user/alice/" for n in range(200)]


@pytest.mark.parametrize(
    ("scope", "passes"),
    [
        ("/user/alice/", True),
        ("/user/alice/proxy/8000/", True),
        ("/user/alice/proxy/x..y/", True),
        ("/", False),
        ("/user/alice", False),
        ("/user/alice/../bob/", False),
        ("/user/alice/%2e%2E/", False),
        ("/user/alice/.%2e/", False),
        ("/user/alice/..\\", False),
        ("/user/alice/.\t./", False),
        ("https://hub.test/user/alice/", False),
    ],
)
async def test_a_service_worker_stays_below_its_server(
    running: Running, upstream: Upstream, scope: str, passes: bool
) -> None:
    running.route(plain_route(upstream.target, "/user/alice/", server=True))
    upstream.respond = lambda request: ok(b"", f"Service-Worker-Allowed: {scope}")
    async with running.client() as client:
        reply = await client.ask("/user/alice/sw.js")
    assert reply.one("service-worker-allowed") == (scope if passes else None)


async def test_elsewhere_nothing_is_filtered(running: Running, upstream: Upstream) -> None:
    """What is not a user's server, such as the hub, says for itself what it may."""
    lines = ["Set-Cookie: jupyterhub-session-id=1; Path=/", "Service-Worker-Allowed: /"]

    def respond(request: Message) -> bytes:
        return ok(b"", *lines)

    upstream.respond = respond
    async with running.client() as client:
        reply = await client.ask("/hub/login", "Cookie: jupyterhub-hub-login=l")
    assert reply.all("set-cookie") == ["jupyterhub-session-id=1; Path=/"]
    assert reply.one("service-worker-allowed") == "/"
    assert upstream.requests[0].one("cookie") == "jupyterhub-hub-login=l"

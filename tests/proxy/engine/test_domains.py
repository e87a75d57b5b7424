"""One domain for each user: routes by host, cookies that no other host can set."""

import pytest
from proxy.hub import FakeHub, allowed
from proxy.running import SECRET, SERVER_ID, Running
from proxy.signing_in import NAVIGATION, cookie_pair
from proxy.wire import Message, Upstream, ok

from carrel_shared.clock import SystemClock
from carrel_shared.wire.access import RedeemedToken
from carrel_shared.wire.routes import Access, DeleteRoute, Route, RouteChanges

HUB = "https://hub.test"
ALICE = "https://alice.hub.test"
COOKIE = f"__Host-carrel-session-{SERVER_ID}"


def hub_routes(upstream: Upstream) -> list[Route]:
    return [
        Route(prefix="/", host=host, targets=[upstream.target])
        for host in ("hub.test", "*.hub.test")
    ]


def alices_route(upstream: Upstream, scheme: str = "https") -> Route:
    access = Access(
        server_id=SERVER_ID,
        client_id="c",
        secret=SECRET,
        origin=f"{scheme}://alice.hub.test",
        hub_origin=f"{scheme}://hub.test",
    )
    return Route(
        prefix="/user/alice/",
        host="alice.hub.test",
        targets=[upstream.target],
        access=access,
        server=True,
    )


@pytest.fixture(autouse=True)
def _domains(running: Running, upstream: Upstream, hub: FakeHub) -> None:
    running.route(*hub_routes(upstream), alices_route(upstream))
    hub.know("good", SERVER_ID, allowed("alice"))
    upstream.respond = lambda request: ok((request.one("x-carrel-auth") or "hub").encode())


async def ask(running: Running, host: str, target: str, *fields: str) -> Message:
    async with running.client() as client:
        client.get(target, *fields, host=host)
        return await client.response()


@pytest.mark.parametrize("host", ["alice.hub.test", "ALICE.hub.test:443", "alice.hub.test."])
async def test_a_users_host_leads_to_that_users_server(host: str, running: Running) -> None:
    reply = await ask(running, host, "/user/alice/lab", f"Cookie: {COOKIE}=good")
    assert (reply.status, reply.body) == (200, b"cookie")


@pytest.mark.parametrize("host", ["hub.test", "bob.hub.test", "nobody.hub.test"])
async def test_no_other_host_leads_there(host: str, running: Running) -> None:
    reply = await ask(running, host, "/user/alice/lab", f"Cookie: {COOKIE}=good")
    assert (reply.status, reply.body) == (200, b"hub")


@pytest.mark.parametrize(
    "host", ["evilhub.test", "hub.test.evil", "127.0.0.1:8000", "x.alice.hub.test", "test", "[::1]"]
)
async def test_another_name_is_misdirected(host: str, running: Running, upstream: Upstream) -> None:
    """H06, H07: nothing of it reaches anybody, and no answer of ours repeats the name."""
    for fields in ((), NAVIGATION, ("X-Forwarded-Host: hub.test",)):
        reply = await ask(running, host, "/hub/home", *fields)
        assert reply.status == 421
        assert host.encode() not in reply.body + reply.raw_head
    assert upstream.requests == []


async def test_a_sign_in_uses_cookies_that_only_this_host_can_set(
    running: Running, hub: FakeHub, upstream: Upstream
) -> None:
    begun = await ask(running, "alice.hub.test", "/user/alice/lab?x=1", *NAVIGATION)
    location = begun.one("location") or ""
    assert location.startswith(f"{HUB}/hub/api/oauth2/authorize?")
    assert "redirect_uri=https%3A%2F%2Falice.hub.test%2Fuser%2Falice%2Foauth_callback" in location
    for cookie in begun.all("set-cookie"):
        assert cookie.startswith("__Host-carrel-")
        assert {"Path=/", "Secure", "HttpOnly"} <= set(cookie.split("; "))

    state = location.partition("state=")[2].partition("&")[0]
    hub.codes["c"] = RedeemedToken(
        token="fresh", expires_at=SystemClock().now(), verdict=allowed("alice")
    )
    done = await ask(
        running,
        "alice.hub.test",
        f"/user/alice/oauth_callback?code=c&state={state}",
        # Two of them, as a neighbour's page could bring about: they do not count here.
        f"Cookie: jupyterhub-session-id=a; jupyterhub-session-id=b; "
        f"{cookie_pair(begun.all('set-cookie')[0])}",
    )
    assert (done.status, done.one("location")) == (302, "/user/alice/lab?x=1")
    assert done.all("set-cookie")[1].startswith(f"{COOKIE}=fresh; Path=/;")
    (redeemed,) = hub.called("/redeem")
    assert redeemed["session_id"] is None
    assert redeemed["redirect_uri"] == f"{ALICE}/user/alice/oauth_callback"


async def test_a_cookie_that_any_host_could_set_is_none(running: Running) -> None:
    plain = COOKIE.removeprefix("__Host-")
    reply = await ask(running, "alice.hub.test", "/user/alice/api", f"Cookie: {plain}=good")
    assert reply.status == 403


async def test_without_tls_the_browsers_session_is_looked_at(
    running: Running, hub: FakeHub, upstream: Upstream
) -> None:
    """Plain cookies can be set by every host of the domain."""
    running.route(*hub_routes(upstream), alices_route(upstream, "http"))
    begun = await ask(running, "alice.hub.test", "/user/alice/lab", *NAVIGATION)
    state = (begun.one("location") or "").partition("state=")[2].partition("&")[0]
    callback = f"/user/alice/oauth_callback?code=c&state={state}"
    cookie = cookie_pair(begun.all("set-cookie")[0])
    assert (await ask(running, "alice.hub.test", callback, f"Cookie: {cookie}")).status == 403
    assert hub.called("/redeem") == []


async def test_signing_out_leads_to_the_hubs_host(running: Running) -> None:
    reply = await ask(running, "alice.hub.test", "/user/alice/logout")
    assert reply.one("location") == f"{HUB}/hub/logout"


async def test_a_server_may_speak_for_its_own_host(running: Running, upstream: Upstream) -> None:
    upstream.respond = lambda _: ok(
        b"",
        "Set-Cookie: session=1; Path=/; Domain=hub.test",
        "Set-Cookie: __Host-carrel-x=1; Path=/",
        "Set-Cookie: jupyterhub-session-id=1; Path=/",
        "Service-Worker-Allowed: /",
        "Origin-Agent-Cluster: ?1",
        'Use-As-Dictionary: match="/*"',
        "Clear-Site-Data: *",
        "Strict-Transport-Security: max-age=1; includeSubDomains",
        "Alt-Svc: h3=:443",
    )
    reply = await ask(running, "alice.hub.test", "/user/alice/", f"Cookie: {COOKIE}=good")
    assert reply.all("set-cookie") == ["session=1; Path=/"]
    names = {name.lower() for name, _ in reply.fields}
    assert names == {
        "set-cookie",
        "service-worker-allowed",
        "origin-agent-cluster",
        "use-as-dictionary",
        "content-length",
    }


async def test_a_route_is_removed_for_its_host_alone(running: Running, upstream: Upstream) -> None:
    table = running.proxy.table
    for change in (DeleteRoute(prefix="/user/alice/"), DeleteRoute(prefix="/", host="hub.test")):
        running.number += 1
        table.change(
            RouteChanges(
                epoch="e", base=running.number - 1, number=running.number, changes=[change]
            )
        )
    reply = await ask(running, "alice.hub.test", "/user/alice/", f"Cookie: {COOKIE}=good")
    assert reply.body == b"cookie"
    assert (await ask(running, "hub.test", "/")).status == 421
    assert table.status.routes == 2


async def test_a_health_check_needs_no_name(running: Running) -> None:
    assert (await ask(running, "127.0.0.1", "/_carrel/health")).status == 200

"""What went wrong in others' hubs, as advisories tell it, tried here: ADV-02 to ADV-18.

Those that have their place elsewhere are named in the tests there.
"""

import io
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from hub.route_walk import build_apps, routes
from hub.web.site import ORIGIN, Browser, Site, has_element, open_site

import carrel_hub
from carrel_hub.auth.digest import digest
from carrel_hub.auth.subjects import find_token
from carrel_hub.auth.tokens import issue_token
from carrel_hub.startup import apply_settings
from carrel_shared.logging import configure_logging

READS = ("GET", "HEAD", "OPTIONS")
CANARY = "canary-0123456789abcdef"


@pytest.fixture
async def site(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    """The whole public application."""
    async with open_site() as made:
        found, public, _ = build_apps(made.hub, monkeypatch)
        made.app = public  # type: ignore[assignment]
        apps.clear()
        apps.extend(found)
        yield made


apps: list[FastAPI] = []
"""Those of the test under way."""


def every_route() -> list[tuple[str, str]]:
    found = [one for app in apps for one in routes(app) if not one[1].startswith("/internal/")]
    assert len(found) > 100, "the walk does not find the routes"
    return [(method, re.sub(r"\{[^}]*\}", "alice", path)) for method, path in found]


@contextmanager
def log_of(capsys: pytest.CaptureFixture[str]) -> Iterator[io.StringIO]:
    """Have the hub's real log go to where it can be read."""
    capsys.readouterr()
    configure_logging("hub", level="debug")
    said = io.StringIO()
    yield said
    said.write(capsys.readouterr().err)


async def test_adv_02_a_cookie_alone_changes_nothing_on_any_route(site: Site) -> None:
    """Of all routes there are: one that is added tomorrow is tried tomorrow."""
    browser = await site.signed_in("alice", admin=True)
    headers = {
        **browser.headers,
        "Sec-Fetch-Site": "same-origin",
        "Content-Type": "application/json",
    }
    for method, path in every_route():
        if method in READS or path.endswith(("/oauth2/token", "/csp-report", "/hub/login")):
            continue  # a client's secret, a browser's report; who is signed in is sent on
        for mode in ("navigate", "no-cors"):
            sent = headers | {"Sec-Fetch-Mode": mode}
            reply = await browser.client.request(method, path, json={}, headers=sent)
            assert reply.status_code in (403, 404, 405, 424), f"{method} {path} {mode}"
            if reply.status_code == 404:  # there is nothing to change
                assert path == "/alice", path
    assert (await site.world.user("alice")).admin


async def test_adv_03_a_token_in_a_header_never_becomes_a_cookie(site: Site) -> None:
    user = await site.add_user("alice")
    async with site.hub.database.write() as db:
        token = (await issue_token(db, site.hub, user, actor="hub")).secret
    client = site.client(headers={"Authorization": f"token {token}"})
    assert (await client.get("/hub/api/user")).json()["name"] == "alice"
    for method, path in every_route():
        if method == "GET" and "login" not in path:
            reply = await client.get(path)
            names = {cookie.name for cookie in reply.cookies.jar}
            assert names <= {"_xsrf"}, f"{path} sets {names}"


async def test_adv_04_a_tossed_token_is_worth_nothing_before_or_after_ones_own(
    site: Site,
) -> None:
    mallory, alice = await site.signed_in("mallory"), await site.signed_in("alice")
    stolen, own = (str(one.client.cookies["_xsrf"]) for one in (mallory, alice))
    login = str(alice.client.cookies["jupyterhub-hub-login"])
    for jar in (
        f"_xsrf={stolen}; _xsrf={own}", f"_xsrf={own}; _xsrf={stolen}", f"_xsrf={stolen}",
    ):  # fmt: skip
        headers = {"Cookie": f"jupyterhub-hub-login={login}; {jar}"}
        bare = site.client()
        forged = await bare.post("/hub/token", data={"_xsrf": stolen}, headers=headers)
        assert forged.status_code == 403, jar
        if own in jar:
            good = await bare.post("/hub/token", data={"_xsrf": own}, headers=headers)
            assert good.status_code == 200, jar
    for text in (f"token={stolen}", f"token={login}"):
        assert (await site.client().get(f"/hub/home?{text}")).status_code == 302, "forced login"


@pytest.mark.parametrize("mode", ["no-cors", "cors", "navigate", "same-origin", None])
@pytest.mark.parametrize("origin", ["cross-site", "same-site", "same-origin", "none", None])
async def test_adv_07_no_mode_of_fetch_makes_a_form_good(
    site: Site, mode: str | None, origin: str | None
) -> None:
    browser = await site.signed_in("alice")
    said = {"Sec-Fetch-Mode": mode, "Sec-Fetch-Site": origin}
    headers = {name: value for name, value in said.items() if value}
    reply = await browser.client.post("/hub/token", data={"note": "x"}, headers=headers)
    assert reply.status_code == 403
    image = await browser.client.get("/hub/logo", headers=headers | {"Sec-Fetch-Dest": "image"})
    assert image.status_code == 200, "images load"


async def test_adv_08_a_name_of_ten_megabytes_is_refused_and_hardly_logged(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    browser = site.browser()
    page = await browser.get("/hub/login")
    with log_of(capsys) as log:
        huge = await browser.post("/hub/login", {"username": "x" * 10_000_000, "password": "y"})
        assert huge.status_code == 413
        long = await browser.press(page, "sign-in", username="x" * 60_000, password="y")
        assert long.status_code == 403
    assert len(log.getvalue()) < 300, log.getvalue()


async def test_adv_08_guessing_without_end_is_logged_with_an_end(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    browser = site.browser()
    page = await browser.get("/hub/login")
    with log_of(capsys) as log:
        for _ in range(60):
            await browser.press(page, "sign-in", username="alice", password="x")
    assert len(log.getvalue()) < 60 * 300
    assert len(await site.sessions()) == 0


async def test_adv_11_no_redirect_of_any_route_leads_away(site: Site) -> None:
    """Trailing slashes, what nothing answers, and `next` wherever it is read."""
    alice, stranger = await site.signed_in("alice"), site.browser()
    wanted = [
        "//evil.test", "/\\evil.test", "https://evil.test/", "%2f%2fevil.test", "///evil.test",
        "https:evil.test", "/%09/evil.test",
    ]  # fmt: skip
    pages = ["/hub/", "/hub/login", "/hub/logout", "/hub/spawn", "/hub/spawn-pending/alice"]
    addresses = [f"{page}?next={text}" for page in pages for text in wanted]
    addresses += [f"/{text}" for text in wanted] + [f"/user/{text}" for text in wanted]
    addresses += ["//evil.test", "//evil.test/user/x", "/user//evil.test", "/services//evil.test"]
    addresses += [f"/hub/user-redirect/{text}" for text in wanted]
    for browser in (alice, stranger):
        for address in addresses:
            reply = await browser.client.get(
                httpx.URL(ORIGIN).copy_with(raw_path=address.encode()),
                headers=browser.headers,
            )
            assert reply.status_code < 500, address
            if location := reply.headers.get("location"):
                assert re.match(r"/[^/\\]|/$", location), f"{address} leads to {location}"


async def test_adv_12_13_14_faults_show_and_log_nothing_of_the_request_or_the_inside(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = await site.signed_in("alice", admin=True)
    token = str(browser.client.cookies["_xsrf"])

    def broken(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError("SELECT secret FROM the_inside")

    transport = httpx.ASGITransport(site.app, raise_app_exceptions=False)
    headers = {
        **browser.headers,
        "Authorization": f"token {CANARY}", "Referer": f"http://hub.test/x?token={CANARY}",
        "X-XSRFToken": token, "X-Canary": CANARY,
    }  # fmt: skip
    cookies = [*browser.client.cookies.jar]
    monkeypatch.setattr(site.hub.database, "read", broken)
    monkeypatch.setattr(site.hub.database, "write", broken)
    seen = set()
    with log_of(capsys) as log:
        async with httpx.AsyncClient(
            transport=transport, base_url="http://hub.test:8000"
        ) as client:
            for cookie in cookies:
                client.cookies.jar.set_cookie(cookie)
            client.cookies.set("canary", CANARY, domain="hub.test", path="/")
            for method, path in every_route():
                if method == "HEAD":
                    continue
                address = f"{path}?code={CANARY}&_xsrf={token}"
                reply = await client.request(method, address, headers=headers, json={})
                seen.add(reply.status_code)
                for secret in (
                    CANARY,
                    "Traceback",
                    "SELECT",
                    "the_inside",
                    str(carrel_hub.__file__),
                ):
                    if not (secret == CANARY and reply.is_redirect):
                        assert secret not in reply.text, f"{method} {path} shows {secret}"
    assert 500 in seen
    assert "the_inside" in log.getvalue(), "whoever runs the hub is told"
    assert CANARY not in log.getvalue()


async def test_adv_15_everything_the_hub_sends_has_a_strict_policy(site: Site) -> None:
    browser = await site.signed_in("alice")
    for method, path in every_route():
        if method in READS:
            reply = await browser.client.request(method, path, headers=browser.headers)
            policy = reply.headers.get("content-security-policy", "")
            if path in ("/hub/health",):
                continue
            assert "frame-ancestors 'none'" in policy, path
            assert "default-src 'none'" in policy, path
            assert "unsafe" not in policy, path
            assert reply.headers["x-content-type-options"] == "nosniff", path


def test_adv_16_17_no_path_or_name_is_compared_by_its_beginning_alone() -> None:
    """`re.match` says nothing about the end, `startswith` nothing about what follows."""
    source = Path(carrel_hub.__file__).parent
    for path in source.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\bre\.match\(", text), path
        assert not re.search(r"str\(\w+\)\.startswith\(|\.resolve\(\)\)\.startswith", text), path
    for path in (source / "auth").rglob("*.py"):
        assert not re.search(r"\.match\(", path.read_text(encoding="utf-8")), path


async def test_adv_17_a_pattern_for_names_holds_to_the_end() -> None:
    async with open_site(auth={"username_pattern": "[a-z]+", "allow_all": True}) as site:
        for name in ("alice9", "alice\n", "alice.evil"):
            site.pam.passwords[name.strip()] = "pw"
            browser = site.browser()
            page = await browser.get("/hub/login")
            reply = await browser.press(page, "sign-in", username=name, password="pw")
            assert reply.status_code == (302 if name.strip() == "alice" else 403), name


async def is_known(site: Site, browser: Browser, secret: str) -> tuple[bool, bool]:
    home = await browser.get("/hub/home")
    async with site.hub.database.read() as db:
        token = await find_token(db, site.hub, digest(secret))
    return has_element(home, "sign-out") and home.status_code == 200, token is not None


async def test_adv_18_who_is_shut_out_is_out_at_once_and_after_a_restart(site: Site) -> None:
    browser = await site.signed_in("alice")
    async with site.hub.database.write() as db:
        user = await site.world.user("alice")
        secret = (await issue_token(db, site.hub, user, actor="hub")).secret
    assert await is_known(site, browser, secret) == (True, True)
    auth = site.hub.settings.auth
    blocked = auth.model_copy(update={"blocked_users": ["alice"]})
    site.world.change_settings(auth=blocked)
    assert await is_known(site, browser, secret) == (False, False)
    await apply_settings(site.hub)
    assert {"user": "alice"}.items() <= (await site.changes())[-1]["revocation"].items()
    site.world.change_settings(auth=auth)
    await apply_settings(site.hub)
    assert await is_known(site, browser, secret) == (False, False), "nothing comes back by itself"

"""One domain for each user, in a real browser, with TLS: a neighbour's page gets nothing."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from support.accounts import Account
from support.installation import Installation
from support.lab import Lab
from support.people import sign_in_with_link, sign_in_with_password
from support.ports import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(300)]

Open = Callable[[], Page]

NAME = "hub.localhost"

ATTACK = """async ([url, method]) => {
    try {
        const reply = await fetch(url, {method, credentials: 'include', mode: 'no-cors',
            body: method === 'POST' ? 'x=1' : undefined});
        return reply.type;
    } catch (error) {
        return 'failed';
    }
}"""

SOCKET = """(url) => new Promise((resolve) => {
    const socket = new WebSocket(url);
    socket.onopen = () => resolve('open');
    socket.onerror = () => resolve('refused');
})"""


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def installation(
    alice: Account, bob: Account, port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    directory = tmp_path_factory.mktemp("tls")
    for parent in (directory, *list(directory.parents)[:-2]):
        parent.chmod(parent.stat().st_mode | 0o055)
    cert, key = directory / "cert.pem", directory / "key.pem"
    make_certificate(cert, key)
    toml = (
        f'[hub]\npublic_url = "https://{NAME}:{port}/"\nuser_domains = true\n'
        f'[hub.auth]\nallowed_users = ["{bob.name}"]\n'
    )
    options = ("--tls-cert", str(cert), "--tls-key", str(key))
    with Installation(user=alice.name, toml=toml, port=port, options=options) as running:
        yield running


def make_certificate(cert: Path, key: Path) -> None:
    """Make one for the hub and all names below it."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", f"/CN={NAME}",
         "-addext", f"subjectAltName=DNS:{NAME},DNS:*.{NAME}",
         "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    for path in (cert, key):
        path.chmod(0o644)


@pytest.fixture
def person(browser: Browser) -> Iterator[Open]:
    """Open a browser of somebody new, who takes our certificate."""
    contexts = []

    def open_browser() -> Page:
        context = browser.new_context(ignore_https_errors=True)
        contexts.append(context)
        return context.new_page()

    yield open_browser
    for context in contexts:
        context.close()


def home(user: Account, port: int) -> str:
    return f"https://{user.name}.{NAME}:{port}/user/{user.name}/"


def arrive(page: Page, user: Account, port: int) -> Lab:
    page.wait_for_url(f"{home(user, port)}lab**", timeout=60_000)
    lab = Lab(page)
    lab.wait_until_loaded()
    return lab


def test_a_user_computes_on_a_host_of_their_own(
    installation: Installation, alice: Account, port: int, person: Open
) -> None:
    page = person()
    assert installation.link.startswith(f"https://{NAME}:{port}/hub/sign-in/")
    sign_in_with_link(page, installation.link)
    lab = arrive(page, alice, port)
    lab.new_notebook()
    assert lab.run("6*7") == "42"
    assert lab.run("import os; print(os.environ['JUPYTERHUB_HOST'])") == f"https://{NAME}:{port}"

    cookies = {cookie["name"]: cookie for cookie in page.context.cookies()}
    assert cookies["__Host-jupyterhub-hub-login"]["domain"] == NAME
    (session,) = (name for name in cookies if name.startswith("__Host-carrel-session-"))
    assert cookies[session]["domain"] == f"{alice.name}.{NAME}"
    assert cookies[session]["httpOnly"]

    page.goto(f"https://{NAME}:{port}/hub/home")
    expect(page.locator("#open")).to_have_attribute("href", home(alice, port))


def test_a_deep_link_survives_the_sign_in(
    installation: Installation, bob: Account, port: int, person: Open
) -> None:
    """With what stands behind its #, which no server ever sees."""
    first = person()
    sign_in_with_password(first, f"https://{NAME}:{port}/", bob)
    arrive(first, bob, port)
    place = f"{home(bob, port)}api/status?x=%C3%BC&y=1#here"

    session = [c for c in first.context.cookies() if "carrel-session" in c["name"]]
    first.context.clear_cookies(name=session[0]["name"])
    page = first.context.new_page()
    page.goto(place)
    assert page.url == place

    page = person()
    page.goto(place)
    page.locator("#username").fill(bob.name)
    page.locator("#password").fill(bob.password)
    page.locator("#sign-in").click()
    page.wait_for_url(place)


def test_a_neighbours_page_reaches_nothing(
    installation: Installation, alice: Account, bob: Account, port: int, person: Open
) -> None:
    """Alice looks at a page that bob's server serves, signed in to her own in the same browser."""
    page = person()
    sign_in_with_link(page, installation.new_link())
    arrive(page, alice, port)
    page.goto(f"{home(bob, port)}lab")
    page.locator("#allow").click()
    arrive(page, bob, port)

    mine = home(alice, port)
    seen: list[int] = []
    page.on(
        "response", lambda reply: seen.append(reply.status) if reply.url.startswith(mine) else None
    )
    for method, path in (("GET", "api/contents"), ("POST", "api/kernels"), ("GET", "files/x.py")):
        page.evaluate(ATTACK, [f"{mine}{path}", method])
    assert set(seen) == {403}, seen
    socket = f"wss://{alice.name}.{NAME}:{port}/user/{alice.name}/api/events/subscribe"
    assert page.evaluate(SOCKET, socket) == "refused"
    own = f"wss://{bob.name}.{NAME}:{port}/user/{bob.name}/api/events/subscribe"
    assert page.evaluate(SOCKET, own) == "open"

    with page.context.expect_page() as opened:
        page.evaluate("(url) => { window.other = window.open(url); }", f"{mine}lab")
    opened.value.wait_for_load_state()
    read = "() => { try { return window.other.document.title } catch { return 'another origin' } }"
    assert page.evaluate(read) == "another origin"
    hub = "(url) => { window.hub = window.open(url); }"
    with page.context.expect_page() as opened:
        page.evaluate(hub, f"https://{NAME}:{port}/hub/home")
    opened.value.wait_for_load_state()
    page.wait_for_function("() => window.hub.closed")  # it shares nothing with an opener


def test_a_neighbours_cookies_change_nothing(
    installation: Installation, alice: Account, bob: Account, port: int, person: Open
) -> None:
    """They toss every name that we use at the whole domain."""
    page = person()
    sign_in_with_link(page, installation.new_link())
    arrive(page, alice, port)
    names = [cookie["name"] for cookie in page.context.cookies()]
    page.goto(f"{home(bob, port)}lab")
    if page.locator("#allow").count():
        page.locator("#allow").click()
    arrive(page, bob, port)
    for name in {*names, "jupyterhub-hub-login", "jupyterhub-session-id", "_xsrf"}:
        for path in ("/", "/hub/", f"/user/{alice.name}/"):
            page.evaluate(
                "(text) => { document.cookie = text; }",
                f"{name}=tossed; Domain={NAME}; Path={path}; Secure",
            )
    page.goto(f"https://{NAME}:{port}/hub/home")
    expect(page.locator("#sign-out")).to_be_visible()
    page.goto(f"{home(alice, port)}lab")
    arrive(page, alice, port)
    page.context.clear_cookies(name=next(n for n in names if "carrel-session" in n))
    page.goto(f"{home(alice, port)}lab")
    arrive(page, alice, port)


def test_signing_out_reaches_the_users_host(
    installation: Installation, bob: Account, port: int, person: Open
) -> None:
    """Also what another tab still shows, and what the browser kept of this one (bfcache)."""
    page = person()
    sign_in_with_password(page, f"https://{NAME}:{port}/", bob)
    arrive(page, bob, port)
    other = page.context.new_page()
    other.goto(f"{home(bob, port)}lab")
    arrive(other, bob, port)
    api = f"/user/{bob.name}/api/kernels"
    status = f"() => fetch('{api}', {{cache: 'no-store'}}).then((reply) => reply.status)"
    assert other.evaluate(status) == 200
    page.goto(f"https://{NAME}:{port}/hub/logout")
    expect(page.locator("#sign-in")).to_be_visible()
    assert other.evaluate(status) == 403

    page.go_back()
    if page.url.startswith(home(bob, port)):
        assert page.evaluate(status) == 403
    other.goto(f"{home(bob, port)}lab")
    expect(other.locator("#sign-in")).to_be_visible()

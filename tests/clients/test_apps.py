"""Applications behind real Jupyter servers: their cookies work, and stay with their server.

They set them for the whole of what they take for their own host, which they share here.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients import environment
from clients.street import APPS, Street
from playwright.sync_api import Browser, Page, expect

from support.chromium import open_browser

pytestmark = [pytest.mark.clients, pytest.mark.timeout(600)]

PATIENCE = 60_000
PASSWORD = "no-secret"
ALICE, BOB = "0123456789ab", "ba9876543210"
STREAMLIT = (
    *("--server.headless=true", "--server.address=127.0.0.1", "--server.port={port}"),
    *("--browser.gatherUsageStats=false", "--server.fileWatcherType=none"),
)
CSRF = """async () => {
    const token = document.cookie.split('; ').find(c => c.startsWith('csrf-token=')).slice(11);
    const call = headers => fetch('rpc/client_init', {method: 'POST', headers});
    return [(await call({'X-CSRF-Token': token})).status, (await call({})).status];
}"""


@pytest.fixture(scope="module")
def street() -> Iterator[Street]:
    python = str(environment.make())
    applications = {
        "flask": [python, str(APPS / "flask_app.py"), "{port}", "a-secret-key"],
        "streamlit": [
            *(python, "-m", "streamlit", "run", str(APPS / "streamlit_app.py"), *STREAMLIT),
        ],
        "code": [
            *("env", f"PASSWORD={PASSWORD}", "node", str(environment.CODE_SERVER_SCRIPT)),
            *("--auth=password", "--bind-addr=127.0.0.1:{port}"),
            *("--disable-telemetry", "--disable-update-check"),
        ],
    }
    with Street(applications) as street:
        street.move_in({"alice": ALICE, "bob": BOB})
        yield street


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, street: Street) -> Iterator[Page]:
    """A browser of somebody who may use both servers, which are one origin to it."""
    context = browser.new_context(base_url=street.url)
    context.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    page = context.new_page()
    page.goto("hub/as/alice")
    yield page
    context.close()


def shown(page: Page, name: str) -> dict[str, str]:
    """Return the cookies that an application of somebody's is shown."""
    reply = page.request.get(f"user/{name}/flask/cookies")
    assert reply.status == 200
    seen: dict[str, str] = reply.json()["read"]
    for reserved in ("jupyterhub-", "carrel-"):
        assert reserved not in reply.json()["raw"]
    return seen


def paths(page: Page, name: str) -> set[str]:
    """Return where the browser keeps cookies of a name."""
    return {cookie["path"] for cookie in page.context.cookies() if cookie["name"] == name}


def flask_sign_in(page: Page, server: str, user: str) -> None:
    page.goto(f"user/{server}/flask/")
    page.locator("input").fill(user)
    page.get_by_role("button").click()
    expect(page.locator("#who")).to_have_text(f"{user}, visit 1")


def test_a_flask_session_stays_with_its_server(page: Page) -> None:
    flask_sign_in(page, "alice", "al")
    page.reload()
    expect(page.locator("#who")).to_have_text("al, visit 2")
    flask_sign_in(page, "bob", "bo")
    page.goto("user/alice/flask/")
    expect(page.locator("#who")).to_have_text("al, visit 3")
    assert paths(page, "session") == {"/user/alice/", "/user/bob/"}
    assert shown(page, "alice")["session"] != shown(page, "bob")["session"]
    page.goto("user/bob/flask/")
    expect(page.locator("#who")).to_have_text("bo, visit 2")


def test_a_neighbours_page_cannot_put_a_session_in_place_of_mine(page: Page) -> None:
    """Scripts overwrite no HttpOnly cookie; a second one makes both count as none."""
    flask_sign_in(page, "alice", "al")
    flask_sign_in(page, "bob", "bo")
    toss = f"document.cookie = 'carrel-session-{ALICE}=tossed; path=/user/alice/%s'"
    page.evaluate(toss % "")
    page.goto("user/alice/flask/")
    expect(page.locator("#who")).to_have_text("al, visit 2")
    page.goto("user/bob/flask/")
    page.evaluate(toss % "flask/")
    assert page.request.get("user/alice/flask/cookies").status == 403
    assert page.request.get("user/alice/api/status").status == 200


def test_rstudios_cookies_stay_with_their_server(page: Page) -> None:
    page.goto("user/bob/lab")
    page.goto("user/alice/flask/rstudio/auth-sign-in")
    expect(page.locator("#workbench")).to_be_visible()
    assert page.evaluate(CSRF) == [200, 401]
    page.reload()
    assert page.evaluate(CSRF) == [200, 401]
    assert {"user-id", "csrf-token"} <= set(shown(page, "alice"))
    assert not {"user-id", "csrf-token", "user-list-id"} & set(shown(page, "bob"))


def test_streamlit_keeps_its_state_and_takes_files(page: Page, tmp_path: Path) -> None:
    page.goto("user/alice/streamlit/")
    page.get_by_role("button", name="Count").click()
    expect(page.get_by_text("counted 1")).to_be_visible()

    neighbour = page.context.new_page()
    neighbour.goto("user/bob/streamlit/")
    expect(neighbour.get_by_text("counted 0")).to_be_visible()
    neighbour.get_by_role("button", name="Count").click()
    expect(neighbour.get_by_text("counted 1")).to_be_visible()

    page.get_by_role("button", name="Count").click()
    expect(page.get_by_text("counted 2")).to_be_visible()
    file = tmp_path / "notes.txt"
    file.write_text("hello")
    page.locator("input[type=file]").set_input_files(file)
    expect(page.get_by_text("uploaded notes.txt: 5 bytes")).to_be_visible()
    assert paths(page, "_streamlit_xsrf") == {"/user/alice/", "/user/bob/"}
    told = page.get_by_text("cookies:").inner_text()
    assert "_streamlit_xsrf" in told
    assert "jupyterhub-" not in told
    assert "carrel-" not in told


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs Debian's packages nodejs and npm")
def test_code_server_signs_in_and_stays_so(page: Page) -> None:
    environment.make_code_server()
    page.goto("user/bob/lab")
    page.goto("user/alice/code/")
    page.locator("input[type=password]").fill(PASSWORD)
    with page.expect_websocket() as opened:
        page.get_by_role("button").or_(page.locator("input[type=submit]")).first.click()
    expect(page.locator(".monaco-workbench")).to_be_visible()
    opened.value.wait_for_event("framereceived")
    again = page.request.get("user/alice/code/", max_redirects=0)
    assert again.status == 200
    assert "workbench" in again.text()
    assert paths(page, "code-server-session") == {"/user/alice/code"}
    assert "code-server-session" not in shown(page, "bob")

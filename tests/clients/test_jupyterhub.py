"""JupyterHub 6 runs on our proxy by one changed line, and does all that it does on its own."""

from collections.abc import Iterator
from urllib.parse import unquote

import pytest
from clients import environment
from clients.jupyterhub import API_TOKEN, JupyterHub, Person
from clients.kernels import open_kernel
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from support.chromium import open_browser
from support.lab import Lab

pytestmark = [pytest.mark.clients, pytest.mark.timeout(300)]

CULL_SECONDS = 12
AS_TEST = {"Authorization": f"token {API_TOKEN}"}


@pytest.fixture(scope="module")
def hub() -> Iterator[JupyterHub]:
    with JupyterHub() as hub:
        hub.spawn("alice")
        yield hub


@pytest.fixture(scope="module")
def kernel(hub: JupyterHub) -> str:
    """Return the address of a kernel of alice's."""
    kernel_id = hub.http.post("user/alice/api/kernels").json()["id"]
    channels = hub.http.base_url.join(f"user/alice/api/kernels/{kernel_id}/channels")
    return str(channels.copy_with(scheme="ws"))


def test_a_browser_signs_in_and_computes(hub: JupyterHub) -> None:
    """Nothing of JupyterHub's own sign-in is in the proxy's way: it filters no cookie here."""
    with Person(hub) as alice:
        page = alice.sign_in("alice", "/user/alice/lab")
        assert page.url.path == "/user/alice/lab"
        assert "jupyter-config-data" in page.text
        alice.cookie("jupyterhub-user-alice", "user/alice/")
        alice.cookie("jupyterhub-session-id")

        xsrf = alice.cookie("_xsrf", "user/alice/")
        assert alice.post("user/alice/api/kernels").status_code == 403
        made = alice.post("user/alice/api/kernels", headers={"X-XSRFToken": xsrf})
        assert made.status_code == 201
        path = f"user/alice/api/kernels/{made.json()['id']}/channels?_xsrf={xsrf}"
        url = str(alice.base_url.join(path).copy_with(scheme="ws"))
        request = alice.build_request("GET", path)
        cookies = {"Cookie": request.headers["Cookie"]}
        with open_kernel(url, cookies) as kernel:
            assert kernel.run("print(6 * 7)") == "42\n"
        wanted = Subprotocol("v1.kernel.websocket.jupyter.org")
        with connect(url, additional_headers=cookies, subprotocols=[wanted], proxy=None) as socket:
            assert socket.subprotocol == wanted

        alice.get("hub/logout")
        assert alice.get("user/alice/lab").url.path == "/hub/login"


def test_jupyterlab_runs_in_a_browser(hub: JupyterHub) -> None:
    with open_browser() as browser:
        page = browser.new_page()
        page.goto(f"{hub.url}hub/login?next=/user/alice/lab")
        page.locator("#username_input").fill("alice")
        page.locator("#password_input").fill("any")
        page.locator("#login_submit").click()
        page.wait_for_url("**/user/alice/lab**", timeout=60_000)
        lab = Lab(page)
        lab.wait_until_loaded()
        lab.new_notebook()
        assert lab.run("6*7") == "42"


@pytest.mark.parametrize("name", ["tiny@example.org", "tiny ö~1"])
def test_names_of_any_kind_have_one_route(hub: JupyterHub, name: str) -> None:
    """Were they written in another way than the hub writes them, it would take them for stale."""
    path = hub.spawn(name)
    assert hub.http.post("hub/api/proxy").status_code == 200
    assert f"/{path}" in hub.routes()
    assert f"route_deleted path={unquote(f'/{path}'.rstrip('/'))}" not in hub.log()
    for spelled in (path, path.replace("@", "%40"), path.replace("t", "%74")):
        assert hub.http.get(f"{spelled}x").text.startswith(f"{name} at ")


def test_named_servers_get_what_is_theirs(hub: JupyterHub) -> None:
    hub.spawn("tiny")
    hub.spawn("tiny", "lab1")
    assert hub.http.get("user/tiny/lab1/x").text.endswith("/user/tiny/lab1/x")
    assert {"/", "/user/tiny/", "/user/tiny/lab1/"} <= hub.routes()
    hub.http.delete("hub/api/users/tiny/server")
    hub.wait_for(lambda: not hub.server("tiny"), "it does not stop")
    assert hub.http.get("user/tiny/lab1/x").status_code == 200
    assert "tiny at" not in hub.http.get("user/tiny/x").text


def test_use_is_what_the_hub_hears_of(hub: JupyterHub) -> None:
    hub.spawn("tinyused")
    before = hub.server("tinyused")["last_activity"]
    assert hub.http.get("user/tinyused/").status_code == 200
    hub.wait_for(
        lambda: hub.server("tinyused")["last_activity"] > before, "the hub heard of no activity"
    )


def test_a_killed_proxy_comes_back_with_its_routes(hub: JupyterHub, kernel: str) -> None:
    """JupyterHub looks after it once a second here, and then restores what it knows."""
    hub.spawn("tinykept")
    with open_kernel(kernel, AS_TEST) as before:
        before.run("kept = 'all the while'")
    routes, pid = hub.routes(), hub.proxy_pid
    hub.kill_proxy()
    hub.wait_for(lambda: hub.proxy_pid not in (0, pid), "the proxy is not started again")
    hub.wait_for(lambda: hub.has_routes(routes), "its routes do not come back")
    hub.wait_for(lambda: hub.answers("user/tinykept/x"), "a server's route does not come back")
    with open_kernel(kernel, AS_TEST) as after:
        assert after.run("print(kept)") == "all the while\n"


def test_a_hub_that_was_killed_replaces_its_proxy(hub: JupyterHub) -> None:
    """What it left running it ends first, and gives that one two seconds."""
    path = hub.spawn("tinyleft")
    pid = hub.proxy_pid
    hub.kill()
    assert hub.answers(f"{path}x"), "the proxy goes on alone"
    hub.start()
    assert hub.proxy_pid not in (0, pid)
    hub.wait_for(lambda: hub.answers(f"{path}x"), "the hub does not find its servers again")
    assert hub.answers("user/alice/api/status")


def test_who_computes_is_spared_and_who_is_idle_is_culled(hub: JupyterHub, kernel: str) -> None:
    hub.spawn("tinyidle")
    before = hub.server("alice")["last_activity"]
    with open_kernel(kernel, AS_TEST) as used:

        def has_computed() -> bool:
            used.run("pass")
            return bool(hub.server("alice")["last_activity"] > before)

        hub.wait_for(has_computed, "the hub heard of no activity")
        culler = hub.run(
            *(str(environment.PYTHON), "-m", "jupyterhub_idle_culler"),
            *(f"--timeout={CULL_SECONDS}", "--cull-every=1", f"--url={hub.url}hub/api"),
            JUPYTERHUB_API_TOKEN=API_TOKEN,
        )
        try:

            def culled() -> bool:
                used.run("pass")
                return not hub.server("tinyidle")

            hub.wait_for(culled, "nobody is culled")
            assert used.run("print(6 * 7)") == "42\n"
            assert hub.server("alice")["ready"]
        finally:
            culler.terminate()
            culler.wait(60)
    assert "/user/tinyidle/" not in hub.routes()

"""Carrel's hub with JupyterHub's own single-user server, service library and idle culler."""

from collections.abc import Iterator

import pytest
from clients import environment
from clients.carrel import Carrel, Visitor, carrel, wait_for
from clients.kernels import open_kernel
from clients.street import APPS

pytestmark = [pytest.mark.clients, pytest.mark.timeout(300)]

CLIENT = "jupyterhub-user-alice"


@pytest.fixture(scope="module")
def hub() -> Iterator[Carrel]:
    with carrel() as hub:
        yield hub


@pytest.fixture
def alice(hub: Carrel) -> Iterator[Visitor]:
    with Visitor(hub) as alice:
        yield alice


def test_a_stock_server_signs_its_owner_in_and_out_and_tells_of_activity(
    hub: Carrel, alice: Visitor
) -> None:
    hub.spawn("alice")
    page = alice.sign_in("alice", "/user/alice/lab")
    assert page.url.path == "/user/alice/lab", page.text
    before = hub.servers("alice")[""]["last_activity"]
    assert "jupyter-config-data" in page.text
    assert alice.cookie(CLIENT, "user/alice/")
    xsrf = alice.cookie("_xsrf", "user/alice/")
    made = alice.post("user/alice/api/kernels", headers={"X-XSRFToken": xsrf})
    assert made.status_code == 201
    path = f"user/alice/api/kernels/{made.json()['id']}/channels?_xsrf={xsrf}"
    cookies = alice.build_request("GET", path).headers["Cookie"]
    url = str(alice.base_url.join(path).copy_with(scheme="ws"))
    with open_kernel(url, {"Cookie": cookies}) as kernel:
        assert kernel.run("print(6 * 7)") == "42\n"
    wait_for(
        lambda: hub.servers("alice")[""]["last_activity"] > before,
        lambda: f"no activity after {before}: {hub.servers('alice')}",
    )

    alice.get("hub/logout")
    programs = {"Accept": "application/json", "Sec-Fetch-Mode": "cors"}
    assert alice.get("user/alice/api/status", headers=programs).status_code == 403
    again = alice.get("user/alice/lab")
    assert again.url.path == "/hub/login"


def test_somebody_else_does_not_get_in(hub: Carrel, alice: Visitor) -> None:
    hub.spawn("bob")
    refused = alice.sign_in("alice", "/user/bob/lab")
    assert refused.status_code == 403
    assert "no right" in refused.text


def test_a_token_of_its_owner_opens_a_stock_server(hub: Carrel) -> None:
    hub.spawn("carol", "lab")
    token = hub.api.post("users/carol/tokens").json()["token"]
    status = f"{hub.url}user/carol/lab/api/status"
    reply = hub.api.get(status, headers={"Authorization": f"token {token}"})
    assert (reply.status_code, "started" in reply.json()) == (200, True)
    foreign = hub.api.post("users/dave").status_code
    assert foreign == 201
    other = hub.api.post("users/dave/tokens").json()["token"]
    assert hub.api.get(status, headers={"Authorization": f"token {other}"}).status_code == 403


def test_a_service_with_jupyterhubs_library_signs_people_in(hub: Carrel, alice: Visitor) -> None:
    python = str(environment.make())
    with hub.running("me", python, str(APPS / "hub_service.py")):
        where = f"http://127.0.0.1:{hub.service_port}/services/me/"
        with_no_user = {"follow_redirects": False}
        wait_for(lambda: _answers(hub, where), lambda: hub.log("me"))
        asked = alice.sign_in("alice", "/services/me/")
        assert "the service me" in asked.text, "alice is asked first"
        fields = {"_xsrf": alice.cookie("_xsrf", "hub/")}
        me = alice.post(asked.url, data=fields)
        assert me.json()["user"] == "alice", hub.log("me")
        assert set(me.json()["cookies"]) <= {"jupyterhub-session-id", "service-me", "_xsrf"}
        alice.get("hub/logout")
        assert alice.get("services/me/", **with_no_user).status_code == 302  # type: ignore[arg-type]


def _answers(hub: Carrel, where: str) -> bool:
    import httpx

    try:
        return hub.api.get(where, follow_redirects=False).status_code < 500
    except httpx.TransportError:
        return False


def test_the_real_idle_culler_stops_what_is_idle(hub: Carrel) -> None:
    hub.spawn("eve")
    hub.spawn("eve", "second")
    culler = (str(environment.make()), "-m", "jupyterhub_idle_culler")
    with hub.running("culler", *culler, "--timeout=1", "--cull-every=1", "--api-page-size=1"):
        wait_for(lambda: hub.servers("eve") == {}, lambda: hub.log("culler"))

"""Unmodified servers and services of JupyterHub's behind Carrel's own proxy.

They do their own sign-in with a hub: here the real JupyterHub, whose proxy is passed by. On one
domain with others they keep what is theirs, and are shown nothing else.
"""

import re
from collections.abc import Iterator

import pytest
from clients import environment
from clients.edge import Edge
from clients.jupyterhub import PROXY_TOKEN, JupyterHub, Person
from clients.kernels import open_kernel
from clients.street import APPS

from carrel_shared.wire.routes import Route
from support.ports import free_port

pytestmark = [pytest.mark.clients, pytest.mark.timeout(300)]

CLIENT, SERVICE = "jupyterhub-user-alice", "service-me"

SERVICES = """
c.JupyterHub.services.append({{
    "name": "me", "url": "http://127.0.0.1:{port}", "oauth_no_confirm": True,
    "command": [{python!r}, {script!r}],
}})
c.JupyterHub.load_roles.append(
    {{"name": "user", "scopes": ["self", "access:services"]}})
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[JupyterHub]:
    python, script = str(environment.make()), str(APPS / "hub_service.py")
    more = SERVICES.format(port=free_port(), python=python, script=script)
    with JupyterHub(more) as hub:
        hub.spawn("alice")
        yield hub


@pytest.fixture(scope="module")
def edge(hub: JupyterHub) -> Iterator[Edge]:
    """Carrel's proxy, with the routes that JupyterHub gave its own."""
    api = f"http://127.0.0.1:{hub.api_port}/api/routes"
    table = hub.http.get(api, headers={"Authorization": f"token {PROXY_TOKEN}"}).json()
    internal = "127.0.0.1:1"  # nobody is asked: these servers look after themselves
    with Edge(hub.directory, hub=f"127.0.0.1:{hub.hub_port}", hub_internal=internal) as edge:
        edge.route(
            *(
                Route(
                    prefix=f"{path}/",
                    targets=[table[path]["target"]],
                    server=True,
                    stock_client_id=client,
                )
                for path, client in (
                    ("/user/alice", CLIENT),
                    ("/services/me", SERVICE),
                )
            )
        )
        yield edge


@pytest.fixture
def alice(hub: JupyterHub, edge: Edge) -> Iterator[Person]:
    with Person(hub) as alice:
        alice.base_url = edge.url
        yield alice


def test_a_stock_server_signs_people_in_and_out(alice: Person) -> None:
    page = alice.sign_in("alice", "/user/alice/lab")
    assert page.url.path == "/user/alice/lab"
    assert "jupyter-config-data" in page.text
    assert alice.cookie(CLIENT, "user/alice/")
    xsrf = alice.cookie("_xsrf", "user/alice/")
    assert alice.post("user/alice/api/kernels").status_code == 403
    made = alice.post("user/alice/api/kernels", headers={"X-XSRFToken": xsrf})
    assert made.status_code == 201
    path = f"user/alice/api/kernels/{made.json()['id']}/channels?_xsrf={xsrf}"
    cookies = alice.build_request("GET", path).headers["Cookie"]
    url = str(alice.base_url.join(path).copy_with(scheme="ws"))
    with open_kernel(url, {"Cookie": cookies}) as kernel:
        assert kernel.run("print(6 * 7)") == "42\n"

    alice.get("hub/logout")
    assert alice.get("user/alice/lab").url.path == "/hub/login"


def test_a_service_is_shown_its_own_and_no_others(alice: Person) -> None:
    alice.sign_in("alice", "/user/alice/lab")
    seen = alice.get("services/me/").json()
    assert seen["user"] == "alice"
    for name in (CLIENT, "jupyterhub-hub-login", f"{SERVICE}-x"):  # by a page of a neighbour's
        alice.cookies.set(name, "tossed", domain="127.0.0.1", path="/services/me/")
    cookies = alice.get("services/me/").json()["cookies"]
    session = cookies.pop("jupyterhub-session-id")
    assert re.fullmatch("[0-9a-f]{64}", session)
    assert session != alice.cookie("jupyterhub-session-id")
    assert set(cookies) == {SERVICE, "_xsrf", f"{SERVICE}-x"}


def test_signing_out_at_the_hub_is_noticed_at_once(alice: Person) -> None:
    """HubAuth remembers for minutes who somebody is, but not for another browser session."""
    alice.sign_in("alice", "/services/me/")
    assert alice.get("services/me/").json()["user"] == "alice"
    alice.get("hub/logout")
    assert alice.get("services/me/").url.path == "/hub/login"

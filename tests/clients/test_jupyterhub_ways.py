"""The ways in which JupyterHub may be set up around its proxy, each with a hub of its own."""

import signal
import subprocess
from pathlib import Path

import pytest
from clients.jupyterhub import JupyterHub, Person
from clients.kernels import open_kernel
from proxy.certificates import make_certificate

pytestmark = [pytest.mark.clients, pytest.mark.timeout(300)]

UNIX = """
from urllib.parse import quote

def below(name):
    return "http+unix://" + quote("{directory}/" + name, safe="")

c.JupyterHub.bind_url = below("public.sock")
c.JupyterHub.hub_bind_url = below("hub.sock")
c.ConfigurableHTTPProxy.api_url = below("api.sock")
"""

INTERNAL_TLS = """
c.JupyterHub.internal_ssl = True
c.JupyterHub.internal_certs_location = "{directory}/certificates"
c.ConfigurableHTTPProxy.api_url = c.ConfigurableHTTPProxy.api_url.replace("http:", "https:")
"""


PUBLIC_TLS = """
c.JupyterHub.bind_url = "https://:{port}/jup/"
c.JupyterHub.ssl_cert = "{cert}"
c.JupyterHub.ssl_key = "{key}"
c.JupyterHub.cleanup_proxy = False
c.JupyterHub.cleanup_servers = False
c.ConfigurableHTTPProxy.auth_token = "set-in-the-configuration"
c.ConfigurableHTTPProxy.debug = True
"""


def ends_cleanly(hub: JupyterHub) -> None:
    """Stop a hub while its servers run: they, it and the proxy end, and nothing is left."""
    assert hub.stop() == 0
    hub.wait_for(lambda: not hub.left(), "something is left")


def external_proxy(hub: JupyterHub) -> subprocess.Popen[bytes]:
    """Start a proxy as somebody would who does not leave that to the hub."""
    return hub.run(
        *("carrel-proxy", "--ip", "127.0.0.1", "--port", str(hub.port)),
        *("--api-ip", "127.0.0.1", "--api-port", str(hub.api_port)),
    )


def test_an_external_proxy_that_restarts_is_given_its_routes_again() -> None:
    hub = JupyterHub("c.ConfigurableHTTPProxy.should_start = False", base_url="/jup/")
    proxy = external_proxy(hub)
    with hub:
        path = hub.spawn("tiny")
        assert hub.http.get(f"{path}x").text.endswith("/jup/user/tiny/x")
        routes = hub.routes()
        assert routes == {"/jup/", "/jup/user/tiny/"}
        proxy.send_signal(signal.SIGTERM)
        assert proxy.wait(60) == 2
        proxy = external_proxy(hub)
        hub.wait_for(lambda: hub.answers(f"{path}x"), "the hub does not reconcile")
        hub.wait_for(lambda: hub.has_routes(routes), "its routes do not come back")
        assert hub.stop() == 0
        assert hub.left() != [], "a hub that did not start the proxy must not end it"
        proxy.send_signal(signal.SIGTERM)
        assert proxy.wait(60) == 2


def test_each_user_has_a_host() -> None:
    more = 'c.JupyterHub.subdomain_host = "http://hub.test:{port}"'
    with JupyterHub(more, host="hub.test") as hub, Person(hub) as browser:
        hub.spawn("tiny")
        url = f"http://tiny.hub.test:{hub.port}/user/tiny/x"
        assert hub.http.get(url).text == f"tiny at tiny.hub.test:{hub.port}/user/tiny/x"
        elsewhere = hub.http.get(url.replace("tiny.hub", "other.hub"))
        assert "tiny at" not in elsewhere.text
        assert "tiny at" not in hub.http.get("user/tiny/x").text
        assert {"/", "tiny.hub.test/user/tiny/"} == hub.routes()
        page = browser.sign_in("tiny", "/hub/home")
        assert page.url.path == "/hub/home"
        assert browser.get("user/tiny/").url.host == "tiny.hub.test"
        ends_cleanly(hub)


def test_everything_listens_on_unix_sockets() -> None:
    with JupyterHub(UNIX, socket="public.sock") as hub:
        path = hub.spawn("tiny")
        assert hub.http.get(f"{path}x").text.startswith("tiny at ")
        assert (hub.directory / "api.sock").is_socket()
        nowhere = hub.http.get("hub/no-such-page", headers={"Accept": "text/html"})
        assert nowhere.status_code == 404
        ends_cleanly(hub)


def test_over_tls_people_compute_while_the_hub_is_replaced(tmp_path: Path) -> None:
    files = make_certificate(tmp_path, "edge", "127.0.0.1")
    more = PUBLIC_TLS.replace("{cert}", str(files.cert)).replace("{key}", str(files.key))
    with JupyterHub(more, base_url="/jup/", trust=files.cert) as hub, Person(hub) as browser:
        path = hub.spawn("tiny")
        assert browser.sign_in("tiny", "/jup/hub/home").url.scheme == "https"
        proxy, routes = hub.proxy_pid, hub.routes()
        assert hub.stop() == 0
        assert hub.http.get(f"{path}x").text.endswith("/jup/user/tiny/x")
        assert hub.http.get("hub/home").status_code == 503
        hub.start()
        assert hub.proxy_pid != proxy
        hub.wait_for(lambda: hub.has_routes(routes), "its routes do not come back")
        assert hub.http.get(f"{path}x").text.endswith("/jup/user/tiny/x")


def test_hub_proxy_and_servers_speak_tls_among_each_other() -> None:
    """With certificates that JupyterHub makes, asked for and shown on every hop."""
    with JupyterHub(INTERNAL_TLS) as hub, Person(hub) as alice:
        hub.spawn("alice")
        page = alice.sign_in("alice", "/user/alice/lab")
        assert page.url.path == "/user/alice/lab"
        xsrf = alice.cookie("_xsrf", "user/alice/")
        made = alice.post("user/alice/api/kernels", headers={"X-XSRFToken": xsrf})
        path = f"user/alice/api/kernels/{made.json()['id']}/channels?_xsrf={xsrf}"
        cookies = alice.build_request("GET", path).headers["Cookie"]
        url = str(alice.base_url.join(path).copy_with(scheme="ws"))
        with open_kernel(url, {"Cookie": cookies}) as kernel:
            assert kernel.run("print(6 * 7)") == "42\n"
        ends_cleanly(hub)

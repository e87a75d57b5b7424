"""A whole Carrel whose servers and services are JupyterHub's own, unmodified."""

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
from clients import environment

from support.accounts import temporary_account
from support.installation import Installation
from support.ports import free_port

TOKENS = {"tester": "t" * 40, "me": "m" * 40, "culler": "c" * 40}
PASSWORD = "any"
LOOK_SECONDS = 0.1

EXTERNAL = """
[[hub.services]]
name = "culler"
api_token = "{culler}"
[[hub.services]]
name = "me"
api_token = "{me}"
url = "http://127.0.0.1:{service_port}"
"""
"""The services that the tests themselves run, as whoever runs one beside the hub."""

SETTINGS = """
[hub]
allow_named_servers = true
start_timeout_seconds = 150
[hub.auth]
authenticator = "dummy"
dummy_password = "{password}"
allow_all = true
max_failures = 1000
max_failures_for_name = 1000
[hub.profiles.default]
command = ["{singleuser}", "--allow-root"]
contract = "jupyterhub"
environment = {{ JUPYTERHUB_ACTIVITY_INTERVAL = "1" }}
[[hub.services]]
name = "tester"
api_token = "{tester}"
admin = true
{services}
[[hub.roles]]
name = "culling"
services = ["culler"]
scopes = ["list:users", "read:users:activity", "read:servers", "delete:servers"]
[[hub.roles]]
name = "user"
scopes = ["self", "access:services!service=me"]
[agent]
accounts = "shared-insecure"
shared_account = "{account}"
shared_homes = "{homes}/{{username}}"
"""


@dataclass
class Carrel:
    """The installation, a service beside it, and calls with a token that may do all."""

    installation: Installation
    service_port: int
    api: httpx.Client

    @property
    def url(self) -> str:
        return self.installation.url

    def variables(self, service: str) -> dict[str, str]:
        """Return what a service that is run elsewhere sets itself (JupyterHub's documents)."""
        return {
            "PATH": environment.search_path(),
            "LANG": "C.UTF-8",
            "JUPYTERHUB_API_TOKEN": TOKENS[service],
            "JUPYTERHUB_API_URL": f"{self.url}hub/api",
            "JUPYTERHUB_BASE_URL": "/",
            "JUPYTERHUB_SERVICE_NAME": service,
            "JUPYTERHUB_SERVICE_PREFIX": f"/services/{service}/",
            "JUPYTERHUB_SERVICE_URL": f"http://127.0.0.1:{self.service_port}",
            "JUPYTERHUB_CLIENT_ID": f"service-{service}",
        }

    @contextmanager
    def running(self, service: str, *command: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a service beside the hub."""
        with (self.installation.base / f"{service}.log").open("wb") as log:
            process = subprocess.Popen(
                command, env=self.variables(service), stdout=log, stderr=log, cwd="/"
            )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)

    def log(self, service: str) -> str:
        return (self.installation.base / f"{service}.log").read_text(errors="replace")

    def spawn(self, user: str, server: str = "") -> None:
        """Start somebody's server; returns once it is ready."""
        if self.api.get(f"users/{user}").status_code == 404:
            assert self.api.post(f"users/{user}").status_code == 201
        where = f"users/{user}/servers/{server}" if server else f"users/{user}/server"
        reply = self.api.post(where)
        assert reply.status_code in (201, 202), reply.text
        assert '"ready": true' in self.api.get(f"{where}/progress").text

    def servers(self, user: str) -> dict[str, Any]:
        """Return the servers of somebody that run."""
        found: dict[str, Any] = self.api.get(f"users/{user}").json()["servers"]
        return found


class Visitor(httpx.Client):
    """Somebody with a browser: cookies are kept, redirects followed."""

    def __init__(self, carrel: Carrel) -> None:
        super().__init__(base_url=carrel.url, follow_redirects=True, timeout=60)
        self.headers.update({"Accept": "text/html", "Sec-Fetch-Mode": "navigate"})

    def __enter__(self) -> Self:
        return super().__enter__()

    def sign_in(self, name: str, next_path: str) -> httpx.Response:
        """Fill in the form; ends where that leads."""
        self.get("hub/login")
        form = {"username": name, "password": PASSWORD, "_xsrf": self.cookie("_xsrf", "hub/")}
        return self.post("hub/login", params={"next": next_path}, data=form)

    def cookie(self, name: str, below: str) -> str:
        """Return the cookie of a name at a path."""
        for cookie in self.cookies.jar:
            if cookie.name == name and cookie.path == f"/{below}" and cookie.value:
                return cookie.value
        raise AssertionError(f"no cookie {name} at /{below}: {list(self.cookies.jar)}")


@contextmanager
def carrel(services: str = EXTERNAL) -> Iterator[Carrel]:
    """Start it, as root with an account that runs everybody's servers, and end it again.

    Args:
        services: Their settings; `{service_port}` in it is a free port.
    """
    python = environment.make()
    with _account() as account:
        port = free_port()
        base = Path("/tmp")
        made = Installation(user=account if os.geteuid() == 0 else None)
        base = made.base
        made._toml = SETTINGS.format(
            singleuser=python.with_name("jupyterhub-singleuser"),
            account=account,
            homes=base / "homes",
            services=services.format(service_port=port, **TOKENS),
            password=PASSWORD,
            tester=TOKENS["tester"],
        )
        with made as installation:
            headers = {"Authorization": f"token {TOKENS['tester']}"}
            url = f"{installation.url}hub/api/"
            with httpx.Client(base_url=url, headers=headers, timeout=180) as api:
                yield Carrel(installation, port, api)


@contextmanager
def _removed(directory: Path) -> Iterator[None]:
    try:
        yield
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _account() -> Iterator[str]:
    if os.geteuid() != 0:
        yield pwd.getpwuid(os.geteuid()).pw_name
        return
    with temporary_account("clients") as made:
        yield made.name


def wait_for(what: Callable[[], Any], problem: Callable[[], str], seconds: float = 120) -> None:
    """Return when something has come true."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, problem()
        time.sleep(LOOK_SECONDS)

"""Hubs for measurements: ours, and JupyterHub, both with a trivial server or with JupyterLab."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.accounts import temporary_account
from support.installation import Installation
from support.ports import free_port

TOKEN = "b" * 40
HERE = Path(__file__).resolve().parent
LOOK_SECONDS = 0.02

SETTINGS = """
[hub]
concurrent_spawn_limit = 0
[hub.auth]
authenticator = "dummy"
dummy_password = "any"
allow_all = true
{profile}
[[hub.services]]
name = "bench"
api_token = "{token}"
admin = true
[agent]
accounts = "shared-insecure"
shared_account = "{account}"
shared_homes = "{homes}/{{username}}"
"""

TRIVIAL = """[hub.profiles.default]
command = ["{server}"]
contract = "jupyterhub"
"""

JUPYTERHUB = """
c.JupyterHub.bind_url = "http://127.0.0.1:{port}"
c.JupyterHub.hub_port = {hub_port}
c.JupyterHub.db_url = "sqlite:///{directory}/hub.sqlite"
c.JupyterHub.cookie_secret_file = "{directory}/cookie_secret"
c.JupyterHub.concurrent_spawn_limit = 0
c.JupyterHub.log_level = "ERROR"
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.JupyterHub.spawner_class = "simple"
c.Spawner.args = {arguments}
c.Spawner.http_timeout = 60
c.ConfigurableHTTPProxy.command = ["node", "{proxy}"]
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{proxy_port}"
c.ConfigurableHTTPProxy.auth_token = "bench-proxy"
c.JupyterHub.services = [{{"name": "bench", "api_token": "{token}"}}]
c.JupyterHub.load_roles = [
    {{"name": "bench", "services": ["bench"], "scopes": ["admin:users", "admin:servers", "tokens"]}}
]
"""


class Side:
    """One of the hubs."""

    def __init__(self, name: str, api: str, url: str) -> None:
        self.name, self.api, self.url = name, api, url
        limits = httpx.Limits(max_connections=64)
        headers = {"Authorization": f"token {TOKEN}"}
        self.client = httpx.AsyncClient(
            base_url=api, headers=headers, timeout=180, limits=limits, trust_env=False
        )
        self.tag = ""

    def new_round(self) -> None:
        self.tag = f"b{uuid.uuid4().hex[:6]}"

    async def create(self, count: int) -> float:
        """Make users, 500 a call; return how many a second."""
        began = time.perf_counter()
        for first in range(0, count, 500):
            names = [f"{self.tag}u{n}" for n in range(first, min(first + 500, count))]
            reply = await self.client.post("/users", json={"usernames": names})
            assert reply.status_code == 201, reply.text
        return count / (time.perf_counter() - began)

    async def who(self) -> float:
        """Return requests a second of `GET /user` with a user's own token."""
        reply = await self.client.post(f"/users/{self.tag}u0/tokens", json={})
        return await self._rate("/user", reply.json()["token"], 16)

    async def listing(self) -> float:
        return await self._rate("/users?limit=100", TOKEN, 4)

    async def start(self, number: int) -> float:
        """Return the seconds from the request to `ready` in the user's model."""
        name = f"{self.tag}u{number}"
        began = time.perf_counter()
        reply = await self.client.post(f"/users/{name}/server")
        assert reply.status_code in (201, 202), reply.text
        while not (  # noqa: ASYNC110 - polling is what a script does
            (one := await self._server(name)) and one["ready"]
        ):
            await asyncio.sleep(LOOK_SECONDS)
        return time.perf_counter() - began

    async def stop(self, number: int) -> None:
        name = f"{self.tag}u{number}"
        await self.client.delete(f"/users/{name}/server")
        while await self._server(name):  # noqa: ASYNC110 - so here
            await asyncio.sleep(LOOK_SECONDS)

    async def _server(self, name: str) -> dict[str, bool] | None:
        found: dict[str, dict[str, bool]] = (await self.client.get(f"/users/{name}")).json()[
            "servers"
        ]
        return found.get("")

    async def _rate(self, path: str, token: str, connections: int) -> float:
        run = await asyncio.create_subprocess_exec(
            *("wrk", "-t1", f"-c{connections}", "-d3s"),
            *("-H", f"Authorization: token {token}", f"{self.api}{path}"),
            stdout=asyncio.subprocess.PIPE,
        )
        output = (await run.communicate())[0].decode()
        found = re.search(r"Requests/sec:\s+([\d.]+)", output)
        assert "Non-2xx" not in output, output
        assert found is not None, output
        return float(found[1])


@contextmanager
def carrel() -> Iterator[Side]:
    """Run a whole Carrel whose servers are trivial ones."""
    with carrel_installation() as (side, _):
        yield side


@contextmanager
def carrel_installation(*, lab: bool = False) -> Iterator[tuple[Side, Installation]]:
    """The same, with what runs it.

    Args:
        lab: Its servers are JupyterLabs.
    """
    with ExitStack() as stack:
        as_root = os.geteuid() == 0
        account = stack.enter_context(temporary_account("bench")).name if as_root else ""
        made = Installation(user=account or None)
        server = made.base / "lite_server.py"  # where that account can read it
        shutil.copy(HERE / "lite_server.py", server)
        profile = "" if lab else TRIVIAL.format(server=server)
        made._toml = SETTINGS.format(
            profile=profile, token=TOKEN, account=account, homes=made.base / "homes"
        )
        if not as_root:
            made._toml = made._toml.replace('shared_account = ""\n', "")
        installation = stack.enter_context(made)
        yield Side("carrel", f"{installation.url}hub/api", installation.url), installation


@contextmanager
def jupyterhub(peers: Path, *, lab: bool = False) -> Iterator[Side]:
    """Run JupyterHub as its documents say, with what speaks for it: no limits, no log.

    Args:
        lab: Its servers are JupyterLabs.
    """
    port, hub_port, proxy_port = free_port(), free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="bjh-", dir="/tmp") as directory, ExitStack() as stack:
        config = Path(directory, "jupyterhub_config.py")
        server = [] if lab else [f"c.Spawner.cmd = [{str(HERE / 'lite_server.py')!r}]\n"]
        config.write_text(
            "".join(server)
            + JUPYTERHUB.format(
                port=port,
                hub_port=hub_port,
                proxy_port=proxy_port,
                directory=directory,
                arguments=["--allow-root"] if lab else [],
                proxy=peers / "node_modules" / ".bin" / "configurable-http-proxy",
                token=TOKEN,
            )
        )
        environment = os.environ | {"PATH": f"{peers / 'venv' / 'bin'}:{os.environ['PATH']}"}
        command = [str(peers / "venv" / "bin" / "jupyterhub"), "-f", str(config)]
        stack.enter_context(running(command, directory, environment))
        api = f"http://127.0.0.1:{hub_port}/hub/api"
        wait_for(f"{api}/")
        wait_for(f"http://127.0.0.1:{port}/hub/api/")
        yield Side("jupyterhub", api, f"http://127.0.0.1:{port}/")


@contextmanager
def running(command: list[str], directory: str, environment: dict[str, str]) -> Iterator[None]:
    """Run a program in a directory, and end it."""
    with Path(directory, "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=directory, env=environment, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def wait_for(url: str, seconds: float = 60) -> None:
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        try:
            if httpx.get(url, trust_env=False).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.1)
    raise RuntimeError(f"{url} does not answer")

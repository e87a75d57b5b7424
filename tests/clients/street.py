"""Neighbours on one domain: Carrel's own proxy before Jupyter servers that run as an agent's do.

Each server offers the applications of `apps/` through jupyter-server-proxy.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
from clients import environment
from clients.stand_in_hub import StandInHub

import carrel_agent.process.exec_config
from carrel_shared.service_auth import service_headers
from carrel_shared.wire.routes import Access, Route, RouteTable
from support.installation import free_port
from support.processes import kill_leftovers, wait_until

APPS = Path(__file__).with_name("apps")
EXEC_CONFIG = Path(carrel_agent.process.exec_config.__file__).parent
KEY = "k" * 40
START_SECONDS = 90


class Street:
    """The domain. Use it as a context manager, then move people in.

    Args:
        applications: What jupyter-server-proxy offers: name to the command that serves `{port}`.
    """

    def __init__(self, applications: dict[str, list[str]]) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="cst-", dir="/tmp"))
        self.hub = StandInHub()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self._routes: list[Route] = []
        self._number = 0
        self._processes: list[subprocess.Popen[bytes]] = []
        servers = {
            name: {"command": command, "timeout": 60, "launcher_entry": {"enabled": False}}
            for name, command in applications.items()
        }
        config = self.directory / "config" / "jupyter_server_config.json"
        config.parent.mkdir()
        config.write_text(json.dumps({"ServerProxy": {"servers": servers}}))

    def __enter__(self) -> Self:
        self.hub.__enter__()
        try:
            self._start_proxy()
        except BaseException:
            self.clean()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            print(self.log())
        self.clean()

    def _start_proxy(self) -> None:
        settings = {
            "BIND": f"127.0.0.1:{self.port}",
            "DEFAULT_TARGET": f"http://{self.hub.public}",
            "CONTROL_LISTEN": f"unix:{self.directory}/control.sock",
            "CONTROL_KEY": KEY,
            "HUB_URL": self.hub.internal,
            "HUB_KEY": KEY,
            "STATE_DIR": f"{self.directory}/proxy",
        }
        variables = {f"CARREL_PROXY__{name}": value for name, value in settings.items()}
        self._run([sys.executable, "-m", "carrel_proxy"], variables)
        wait_until(lambda: self._answers("hub/as/nobody"), START_SECONDS, self.log)

    def move_in(self, people: dict[str, str]) -> None:
        """Start people's servers, by name and server id, and route them; they answer then."""
        for name in people:
            self._start_server(name)
        for name, server_id in people.items():
            path = self._socket(name)
            wait_until(lambda: _is_up(path, f"/user/{name}/api"), START_SECONDS, self.log)  # noqa: B023
            access = Access(
                server_id=server_id, client_id=f"jupyterhub-user-{name}", secret=_secret(name)
            )
            self.route(
                Route(
                    prefix=f"/user/{name}/",
                    targets=[f"unix:{path}"],
                    peer_uid=os.getuid(),
                    access=access,
                    server=True,
                )
            )

    def _start_server(self, name: str) -> None:
        server = {
            "base_url": f"/user/{name}/",
            "hub_prefix": "/hub/",
            "default_url": "/lab",
            "user": name,
            "server_name": "",
            "secret": _secret(name),
        }
        home = self.directory / "home" / name
        home.mkdir(parents=True)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self._socket(name)))
            self._run(
                [str(environment.make()), "-m", "jupyterlab", "--allow-root"],
                {
                    "HOME": str(home),
                    "JUPYTER_CONFIG_PATH": f"{EXEC_CONFIG}:{self.directory}/config",
                    "CARREL_SERVER": json.dumps({**server, "listen_fd": listener.fileno()}),
                },
                keep=listener.fileno(),
            )

    def _socket(self, name: str) -> Path:
        return self.directory / f"{name}.sock"

    def route(self, route: Route) -> None:
        """Add a route to those in force."""
        self._routes.append(route)
        self._number += 1
        table = RouteTable(epoch="e", number=self._number, routes=self._routes)
        transport = httpx.HTTPTransport(uds=f"{self.directory}/control.sock")
        with httpx.Client(transport=transport, base_url="http://proxy") as control:
            content = table.model_dump_json()
            reply = control.put(
                "/control/v1/table", content=content, headers=service_headers(KEY, "street")
            )
        assert reply.status_code == 200, reply.text

    def _run(self, command: list[str], variables: dict[str, str], keep: int | None = None) -> None:
        with (self.directory / "log").open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=self.directory,
                env={"PATH": environment.search_path(), "LANG": "C.UTF-8", **variables},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=() if keep is None else (keep,),
                start_new_session=True,
            )
        self._processes.append(process)

    def _answers(self, path: str) -> bool:
        try:
            return httpx.get(self.url + path, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")[-20_000:]

    def clean(self) -> None:
        """End every process of it and remove its directory."""
        try:
            for process in reversed(self._processes):
                process.terminate()
            for process in reversed(self._processes):
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        finally:
            for _ in range(5):
                if not kill_leftovers(self.directory):
                    break
            self.hub.__exit__(None, None, None)
            shutil.rmtree(self.directory, ignore_errors=True)


def _secret(name: str) -> str:
    return f"{name}-".ljust(40, "s")


def _is_up(path: Path, target: str) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(path))
            connection.sendall(f"GET {target} HTTP/1.0\r\nHost: x\r\n\r\n".encode())
            return connection.recv(12).endswith(b" 200")
    except OSError:
        return False

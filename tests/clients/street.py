"""Neighbours on one domain: Carrel's own proxy before Jupyter servers that run as an agent's do.

Each server offers the applications of `apps/` through jupyter-server-proxy.
"""

import json
import os
import shutil
import socket
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from clients import environment
from clients.edge import START_SECONDS, Edge
from clients.stand_in_hub import StandInHub

import carrel_agent.process.exec_config
from carrel_shared.wire.routes import Access, Route
from support.processes import kill_leftovers, wait_until

APPS = Path(__file__).with_name("apps")
EXEC_CONFIG = Path(carrel_agent.process.exec_config.__file__).parent


class Street:
    """The domain. Use it as a context manager, then move people in.

    Args:
        applications: What jupyter-server-proxy offers: name to the command that serves `{port}`.
    """

    def __init__(self, applications: dict[str, list[str]]) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="cst-", dir="/tmp"))
        self.hub = StandInHub()
        self.edge = Edge(self.directory, hub=self.hub.public, hub_internal=self.hub.internal)
        self.url = self.edge.url
        self._stack = ExitStack()
        self._processes: list[subprocess.Popen[bytes]] = []
        servers = {
            name: {"command": command, "timeout": 60, "launcher_entry": {"enabled": False}}
            for name, command in applications.items()
        }
        config = self.directory / "config" / "jupyter_server_config.json"
        config.parent.mkdir()
        config.write_text(json.dumps({"ServerProxy": {"servers": servers}}))

    def __enter__(self) -> Self:
        try:
            self._stack.enter_context(self.hub)
            self._stack.enter_context(self.edge)
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
            self.edge.route(
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

    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")[-20_000:]

    def clean(self) -> None:
        """End every process of it and remove its directory."""
        try:
            for process in reversed(self._processes):
                process.terminate()
            for process in reversed(self._processes):
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        finally:
            for _ in range(5):
                if not kill_leftovers(self.directory):
                    break
            self._stack.close()
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

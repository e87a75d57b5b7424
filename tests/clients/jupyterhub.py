"""A real JupyterHub, unmodified, with our proxy in the place of configurable-http-proxy."""

import contextlib
import os
import shutil
import signal
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx
from clients import environment

from support.ports import free_port
from support.processes import adopting_orphans, kill_leftovers, leftovers

API_TOKEN = "the-token-of-the-test-itself"
PROXY_TOKEN = "what-hub-and-proxy-share"
START_SECONDS = 90
LOOK_SECONDS = 0.1
TINY = Path(__file__).with_name("tiny_server.py")

CONFIG = """
c = get_config()
c.Application.log_level = 30
c.JupyterHub.authenticator_class = "dummy"
c.JupyterHub.spawner_class = "simple"
c.JupyterHub.bind_url = "http://127.0.0.1:{port}{base_url}"
c.JupyterHub.hub_bind_url = "http://127.0.0.1:{hub_port}"
c.JupyterHub.db_url = "sqlite:///{directory}/hub.sqlite"
c.JupyterHub.cookie_secret_file = "{directory}/cookie_secret"
c.JupyterHub.allow_named_servers = True
c.JupyterHub.last_activity_interval = 1
c.JupyterHub.services = [{{"name": "test", "api_token": "{api_token}"}}]
c.JupyterHub.load_roles = [{{"name": "test", "services": ["test"], "scopes": [
    "access:servers", "admin:servers", "admin:users", "list:users", "proxy", "tokens"]}}]
c.Authenticator.allow_all = True
c.ConfigurableHTTPProxy.command = ["carrel-proxy"]
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{api_port}"
c.ConfigurableHTTPProxy.check_running_interval = 1
c.ConfigurableHTTPProxy.pid_file = "{directory}/proxy.pid"
c.SimpleLocalProcessSpawner.home_dir_template = "{directory}/home/{{username}}"
c.Spawner.args = ["--allow-root"]
c.Spawner.start_timeout = c.Spawner.http_timeout = 150

def tiny(spawner):
    if spawner.user.name.startswith("tiny"):
        spawner.cmd, spawner.args = [{python!r}, {tiny!r}], []

c.Spawner.pre_spawn_hook = tiny
{more}
"""


class JupyterHub:
    """One hub in a directory of its own. Use it as a context manager.

    Users whose name begins with `tiny` get `tiny_server.py`, all others `jupyterhub-singleuser`.

    Args:
        more: Further lines of its configuration, with `{directory}` and `{port}` for its own.
        base_url: Its path below the address.
        host: What clients call it; requests go to this machine all the same.
        socket: The name of the public unix socket in its directory, in the place of a port.
        trust: Who vouches for its certificate; None where it speaks plain HTTP.

    Attributes:
        port, hub_port, api_port: Of the proxy's public side, of the hub, and of the proxy's API.
        url: Where browsers find it.
        http: Calls with a token that may do all.
    """

    def __init__(
        self,
        more: str = "",
        *,
        base_url: str = "/",
        host: str = "127.0.0.1",
        socket: str = "",
        trust: Path | None = None,
    ) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="cjh-", dir="/tmp"))
        self.port, self.hub_port, self.api_port = free_port(), free_port(), free_port()
        self.base_url = base_url
        self.url = f"{'https' if trust else 'http'}://{host}:{self.port}{base_url}"
        self._trust = trust
        self._socket = str(self.directory / socket) if socket else None
        self._more = more
        self._process: subprocess.Popen[bytes] | None = None
        self._adopters: list[threading.Thread] = []
        self.http = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"token {API_TOKEN}"},
            timeout=180,
            transport=self.transport(),
        )

    def transport(self) -> httpx.BaseTransport:
        """Return what brings every request to this hub, whatever host it names."""
        return _Here(self._socket, self._trust)

    # --- life ---

    def __enter__(self) -> Self:
        try:
            self.start()
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

    def start(self) -> None:
        """Start it; returns when its API answers through the proxy."""
        python = environment.make()
        config = self.directory / "jupyterhub_config.py"
        more = self._more.replace("{directory}", str(self.directory))
        config.write_text(
            CONFIG.format(
                directory=self.directory,
                port=self.port,
                hub_port=self.hub_port,
                api_port=self.api_port,
                base_url=self.base_url,
                api_token=API_TOKEN,
                python=str(python),
                tiny=str(TINY),
                more=more.replace("{port}", str(self.port)),
            )
        )
        self._process = self.run(str(python.with_name("jupyterhub")), "-f", str(config))
        self.wait_for(lambda: self.answers("hub/api"), "the hub does not answer", START_SECONDS)

    def run(self, *command: str, **variables: str) -> subprocess.Popen[bytes]:
        """Start a program beside the hub: its directory, its log, its variables."""
        with (self.directory / "log").open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=self.directory,
                env={
                    "PATH": environment.search_path(),
                    "HOME": str(self.directory),
                    "LANG": "C.UTF-8",
                    "CONFIGPROXY_AUTH_TOKEN": PROXY_TOKEN,
                    **variables,
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def stop(self) -> int:
        """End it as a service manager does; returns its exit status."""
        assert self._process is not None
        with self._children_adopted():
            self._process.terminate()
            status = self._process.wait(60)
        self._process = None
        return status

    def kill(self) -> None:
        """End the hub alone, without a chance to tidy up."""
        assert self._process is not None
        with self._children_adopted():
            self._process.kill()
            self._process.wait()
        self._process = None

    @contextlib.contextmanager
    def _children_adopted(self) -> Iterator[None]:
        """Make what the hub leaves behind when it ends meanwhile the tests' own children, and take
        the status of each as soon as it ends. To the next hub, which looks with kill(2), a process
        is alive until somebody has, and process 1 may take seconds."""
        assert self._process is not None
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        with adopting_orphans():
            yield
        for child in children:
            adopter = threading.Thread(target=_take_status, args=(int(child),), daemon=True)
            adopter.start()
            self._adopters.append(adopter)

    def clean(self) -> None:
        """End every process of it, politely first, and remove its directory."""
        self.http.close()
        try:
            if self._process is not None and self._process.poll() is None:
                try:
                    self.stop()
                except subprocess.TimeoutExpired:
                    self._process.kill()
                    self._process.wait()
        finally:
            for _ in range(5):
                if not kill_leftovers(self.directory):
                    break
            for adopter in self._adopters:
                adopter.join(60)
            shutil.rmtree(self.directory, ignore_errors=True)

    def left(self) -> list[tuple[int, str]]:
        """Return the processes there are of it."""
        return leftovers(self.directory)

    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")[-20_000:]

    # --- what happens ---

    @property
    def proxy_pid(self) -> int:
        """The process that the hub started as its proxy; 0 while there is none."""
        try:
            return int((self.directory / "proxy.pid").read_text() or 0)
        except FileNotFoundError:
            return 0

    def kill_proxy(self) -> None:
        os.kill(self.proxy_pid, signal.SIGKILL)

    def wait_for(self, condition: Callable[[], Any], problem: str, seconds: float = 120) -> None:
        """Return when something has come true; the hub must not end meanwhile, its proxy may."""

        def holds() -> bool:
            try:
                return bool(condition())
            except httpx.TransportError:
                return False

        deadline = time.monotonic() + seconds
        while not holds():
            ended = self._process is not None and self._process.poll() is not None
            assert not ended, f"the hub has ended:\n{self.log()}"
            assert time.monotonic() < deadline, f"{problem}:\n{self.log()}"
            time.sleep(LOOK_SECONDS)

    def answers(self, path: str, status: int = 200) -> bool:
        """Whether a path is answered with a status, by whoever."""
        try:
            return self.http.get(path).status_code == status
        except httpx.TransportError:
            return False

    def spawn(self, user: str, server: str = "") -> str:
        """Start somebody's server; returns its path once it is ready."""
        name = quote(user, safe="@~")
        if self.http.get(f"hub/api/users/{name}").status_code == 404:
            assert self.http.post(f"hub/api/users/{name}").status_code == 201
        where = f"hub/api/users/{name}/" + (f"servers/{server}" if server else "server")
        reply = self.http.post(where, json={})
        assert reply.status_code in (201, 202), reply.text
        progress = self.http.get(f"{where}/progress").text  # which ends when the start does
        assert '"ready": true' in progress, f"{progress}\n{self.log()}"
        return f"user/{name}/" + (f"{server}/" if server else "")

    def server(self, user: str, server: str = "") -> dict[str, Any]:
        """Return what the hub knows of a server; empty when it does not run."""
        model = self.http.get(f"hub/api/users/{user}").json()
        found: dict[str, Any] = model.get("servers", {}).get(server, {})
        return found

    def routes(self) -> set[str]:
        """Return the paths of the proxy's routes, as the hub hears them from it."""
        reply = self.http.get("hub/api/proxy")
        assert reply.status_code == 200, reply.text
        return set(reply.json())

    def has_routes(self, wanted: set[str]) -> bool:
        """Whether the proxy has these routes, among them the one that leads to the hub."""
        reply = self.http.get("hub/api/proxy")
        return reply.status_code == 200 and set(reply.json()) == wanted


class Person(httpx.Client):
    """Somebody with a browser: cookies are kept, redirects followed."""

    def __init__(self, hub: JupyterHub) -> None:
        super().__init__(
            base_url=hub.url, follow_redirects=True, timeout=60, transport=hub.transport()
        )
        self.headers.update({"Accept": "text/html", "Sec-Fetch-Mode": "navigate"})

    def sign_in(self, name: str, next_path: str) -> httpx.Response:
        """Fill in the form; ends where that leads."""
        self.get("hub/login")
        form = {"username": name, "password": "any", "_xsrf": self.cookie("_xsrf", "hub/")}
        return self.post("hub/login", params={"next": next_path}, data=form)

    def cookie(self, name: str, below: str = "") -> str:
        """Return the cookie of a name at a path below the hub's address."""
        path = f"{self.base_url.path}{below}"
        for cookie in self.cookies.jar:
            if cookie.name == name and cookie.path == path and cookie.value:
                return cookie.value
        raise AssertionError(f"no cookie {name} at {path}: {list(self.cookies.jar)}")


def _take_status(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):  # the hub took it, before it ended itself
        os.waitpid(pid, 0)


class _Here(httpx.HTTPTransport):
    """Every host is this machine, as with a resolver that says so."""

    def __init__(self, socket: str | None, trust: Path | None) -> None:
        verify = ssl.create_default_context(cafile=trust) if trust is not None else True
        super().__init__(uds=socket, verify=verify)
        self._socket = socket

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if self._socket is not None and not Path(self._socket).is_socket():
            raise httpx.ConnectError("the socket is not there yet", request=request)
        there = request.url.copy_with(host="127.0.0.1")
        return super().handle_request(
            httpx.Request(request.method, there, headers=request.headers, stream=request.stream)
        )

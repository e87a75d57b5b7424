"""Carrel's own proxy as a process, before whatever a test routes to it."""

import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
from clients import environment

from carrel_shared.service_auth import service_headers
from carrel_shared.wire.routes import Route, RouteTable
from support.ports import free_port
from support.processes import wait_until

KEY = "k" * 40
START_SECONDS = 90


class Edge:
    """The one public address. Use it as a context manager.

    Args:
        directory: Where it keeps its socket and its state.
        hub: Where the hub's pages are, as host:port.
        hub_internal: Where the hub is called.

    Attributes:
        url: Where browsers find it.
    """

    def __init__(self, directory: Path, *, hub: str, hub_internal: str) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}/"
        self._control = directory / "control.sock"
        self._log = directory / "edge.log"
        self._routes: list[Route] = []
        self._number = 0
        self._process: subprocess.Popen[bytes] | None = None
        settings = {
            "BIND": f"127.0.0.1:{port}",
            "DEFAULT_TARGET": f"http://{hub}",
            "CONTROL_LISTEN": f"unix:{self._control}",
            "CONTROL_KEY": KEY,
            "HUB_URL": hub_internal,
            "HUB_KEY": KEY,
            "STATE_DIR": f"{directory}/edge",
        }
        self._environ = {f"CARREL_PROXY__{name}": value for name, value in settings.items()}

    def __enter__(self) -> Self:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "carrel_proxy"],
                env={"PATH": environment.search_path(), "LANG": "C.UTF-8", **self._environ},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            wait_until(self._is_up, START_SECONDS, self._log.read_text)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            print(self._log.read_text())
        self._end()

    def _end(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _is_up(self) -> bool:
        try:
            reply = httpx.get(f"{self.url}_carrel/health", trust_env=False, timeout=60)
            return reply.status_code == 200
        except httpx.TransportError:
            return False

    def route(self, *routes: Route) -> None:
        """Add routes to those in force."""
        self._routes += routes
        self._number += 1
        table = RouteTable(epoch="e", number=self._number, routes=self._routes)
        transport = httpx.HTTPTransport(uds=str(self._control))
        with httpx.Client(transport=transport, base_url="http://edge", timeout=60) as control:
            reply = control.put(
                "/control/v1/table",
                content=table.json(),
                headers=service_headers(KEY, "routes"),
            )
        assert reply.status_code == 200, reply.text

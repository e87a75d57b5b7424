"""The real thing: two programs on two hosts that share nothing but a wire."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Thread
from time import monotonic, sleep

import pytest
from msgspec.structs import replace
from proxy.authority import Authority
from proxy.running import KEY, plain_route

from carrel_shared.wire.routes import Route, RouteTable

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("ip") is None, reason="needs the package iproute2"),
]

EDGE_ADDRESS, RELAY_ADDRESS = "192.0.2.1", "192.0.2.2"
PATIENCE_SECONDS = 60


@pytest.fixture
def hosts() -> Iterator[tuple[str, str]]:
    """Two network namespaces with a wire between them."""
    names = (f"carrel-a-{os.getpid()}", f"carrel-b-{os.getpid()}")
    with ExitStack() as stack:
        for name in names:
            ip("netns", "add", name)
            stack.callback(ip, "netns", "delete", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", names[0], "link", "add", "wire", "type", "veth", "peer", "wire", "netns", names[1])
        for name, address in zip(names, (EDGE_ADDRESS, RELAY_ADDRESS), strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", "wire")
            ip("-n", name, "link", "set", "wire", "up")
        yield names


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@contextmanager
def program(host: str, directory: Path, **settings: str) -> Iterator[subprocess.Popen[str]]:
    """Run a proxy on a host, up to the moment when its control API answers."""
    control = directory / "control.sock"
    values = {
        "control_listen": f"unix:{control}",
        "control_key": KEY,
        "state_dir": str(directory),
        **settings,
    }
    environ = {f"CARREL_PROXY__{name.upper()}": value for name, value in values.items()}
    process = subprocess.Popen(
        ["ip", "netns", "exec", host, sys.executable, "-m", "carrel_proxy"],
        env={"PATH": os.environ["PATH"], **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        deadline = monotonic() + PATIENCE_SECONDS
        while process.poll() is None and not answers(control) and monotonic() < deadline:
            sleep(0.02)
        yield process
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)
        assert process.stdout is not None
        process.stdout.close()


def answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


class Unix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("control", timeout=PATIENCE_SECONDS)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE_SECONDS)
        self.sock.connect(self._path)


def push(directory: Path, *routes: Route) -> None:
    """Put a table, as the hub or the agent does."""
    control = Unix(directory / "control.sock")
    table = RouteTable(epoch="e", number=1, routes=list(routes))
    headers = {"Authorization": f"Bearer {KEY}", "Carrel-Wire": "1"}
    control.request("PUT", "/control/v1/table", table.json(), headers)
    reply = control.getresponse()
    assert reply.status == 200, reply.read()
    control.close()


@contextmanager
def notebook(path: Path) -> Iterator[None]:
    """A server that says who it thinks is asking."""

    def serve() -> None:
        while True:
            try:
                connected, _ = listening.accept()
            except OSError:
                return
            with connected, connected.makefile("rb") as lines:
                head = b"".join(iter(lines.readline, b"\r\n"))
                connected.sendall(
                    b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b"
                    % (len(head), head)
                )

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        thread = Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE_SECONDS)


def get(host: str, url: str) -> tuple[int, str]:
    """Ask from a host, as its people do."""
    script = (
        "import http.client, json, sys\n"
        "connection = http.client.HTTPConnection(sys.argv[1], timeout=60)\n"
        "connection.request('GET', sys.argv[2])\n"
        "reply = connection.getresponse()\n"
        "print(json.dumps([reply.status, reply.read().decode()]))\n"
    )
    command = ["ip", "netns", "exec", host, sys.executable, "-c", script]
    address, _, path = url.partition("/")
    done = subprocess.run([*command, address, f"/{path}"], check=True, capture_output=True)
    status, body = json.loads(done.stdout)
    return status, body


def test_a_server_on_another_host_is_reached(short_dir: Path, hosts: tuple[str, str]) -> None:
    here, there = hosts
    authority = Authority(short_dir)
    edge_dir, relay_dir, socket_path = short_dir / "a", short_dir / "b", short_dir / "nb.sock"
    for directory in (edge_dir, relay_dir):
        directory.mkdir()
    edge_settings = {
        "bind": f"{EDGE_ADDRESS}:80",
        "insecure": "true",
        "hub_url": f"unix:{edge_dir}/no-hub.sock",
        "hub_key": KEY,
        **authority.edge().fleet,
    }
    relay_settings = {
        "mode": "relay",
        "workers": "2",
        "bind": f"{RELAY_ADDRESS}:8443",
        **authority.host("host-b").fleet,
    }
    behind = plain_route(f"unix:{socket_path}", "/user/alice/", peer_uid=os.getuid())
    beyond = plain_route(f"https://{RELAY_ADDRESS}:8443", "/user/alice/", host_id="host-b")
    with notebook(socket_path), program(here, edge_dir, **edge_settings):
        push(edge_dir, beyond)
        assert get(here, f"{EDGE_ADDRESS}/user/alice/")[0] == 503
        with program(there, relay_dir, **relay_settings):
            push(relay_dir, behind)
            status, body = get(here, f"{EDGE_ADDRESS}/user/alice/lab")
            assert status == 200
            assert body.startswith("GET /user/alice/lab HTTP/1.1\r\n")
            assert f"X-Forwarded-For: {EDGE_ADDRESS}\r\n" in body
        assert get(here, f"{EDGE_ADDRESS}/user/alice/")[0] == 503
        with program(there, relay_dir, **relay_settings) as relay:
            assert get(here, f"{EDGE_ADDRESS}/user/alice/lab")[0] == 200  # it had its table
            relay.send_signal(signal.SIGHUP)
            for _ in range(3):
                assert get(here, f"{EDGE_ADDRESS}/user/alice/lab")[0] == 200
        push(edge_dir, replace(beyond, host_id="host-c"))
        with program(there, relay_dir, **relay_settings):
            assert get(here, f"{EDGE_ADDRESS}/user/alice/")[0] == 502

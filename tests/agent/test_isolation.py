"""What user B, with a shell on the host, can do about A's server: nothing (AGT-01 to AGT-20)."""

import contextlib
import json
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from clients.kernels import Kernel
from websockets.sync.client import unix_connect

from support.accounts import temporary_account
from support.agent_host import AgentHost, Answer, running_host
from support.launching import UnixConnection
from support.processes import open_files
from support.squatter import come_and_go

STRANGER = Path(__file__).parents[1] / "support" / "stranger.py"

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="two accounts are needed, and root to be both"),
]


@pytest.fixture(scope="module")
def stranger() -> Iterator[pwd.struct_passwd]:
    with temporary_account("b") as made:
        yield pwd.getpwnam(made.name)


@pytest.fixture(scope="module")
def host(account: pwd.struct_passwd) -> Iterator[AgentHost]:
    with running_host(account, socket_group="daemon") as running:
        yield running


@pytest.fixture(scope="module", params=["fork", "exec"])
def lab(host: AgentHost, request: pytest.FixtureRequest) -> Iterator["Lab"]:
    made = Lab(host, request.param)
    yield made
    host.stop_server(made.id)
    host.wait_state(made.id, "stopped")


class Lab:
    """A's JupyterLab with a kernel that has said something."""

    def __init__(self, host: AgentHost, runner: str) -> None:
        self.host = host
        spec = host.spec(runner=runner, start_timeout_seconds=90)
        self.canary = secrets.token_hex(16)
        spec["environment"] = {"A_SECRET": self.canary}
        self.id, self.secret = spec["server_id"], spec["secret"]
        assert host.put(spec).status_code == 202
        report = host.wait_state(self.id, "ready", seconds=90)
        self.pid = report["pid"]
        self.path = report["target"].removeprefix("unix:")
        self.headers = {
            "X-Carrel-Secret": self.secret,
            "X-Carrel-User": json.dumps({"name": "somebody"}),
            "X-Carrel-Auth": "token",
        }
        self.kernel_id = self.call("POST", "api/kernels", '{"name": "python3"}')["id"]
        self.said = self.run("print('kernels', 'work')")

    def call(self, method: str, path: str, body: str | None = None) -> Any:
        connection = UnixConnection(self.path)
        connection.request(method, f"/user/somebody/{path}", body, self.headers)
        with connection.getresponse() as reply:
            text = reply.read()
        connection.close()
        assert reply.status < 300, text
        return json.loads(text)

    def run(self, code: str) -> str:
        url = f"ws://lab.example/user/somebody/api/kernels/{self.kernel_id}/channels"
        with unix_connect(
            self.path, uri=url, additional_headers=self.headers, open_timeout=60
        ) as channels:
            return Kernel(channels).run(code)


def look(who: pwd.struct_passwd, **asked: Any) -> dict[str, Any]:
    """Return what an account finds."""
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        Path(place).chmod(0o755)
        script = shutil.copy(STRANGER, place)
        ran = subprocess.run(
            ["/usr/bin/python3", "-I", "-S", script],
            input=json.dumps(asked),
            user=who.pw_uid,
            group=who.pw_gid,
            extra_groups=[],
            env={},
            cwd="/",
            capture_output=True,
            text=True,
            check=True,
        )
    found: dict[str, Any] = json.loads(ran.stdout)
    assert found["uid"] == who.pw_uid
    return found


def left_in_tmp(who: pwd.struct_passwd) -> list[str]:
    found = []
    for path in Path("/tmp").iterdir():
        with contextlib.suppress(FileNotFoundError):  # others' come and go
            if path.lstat().st_uid == who.pw_uid:
                found.append(str(path))
    return found


def test_kernels_work_and_listen_on_no_port(
    lab: Lab, account: pwd.struct_passwd, stranger: pwd.struct_passwd
) -> None:
    """AGT-20: there is no port of A's to connect to, and what there is instead is closed."""
    assert lab.said == "kernels work\n"
    connection_file = lab.run("import ipykernel; print(ipykernel.get_connection_file())").strip()
    kernel = json.loads(Path(connection_file).read_text())
    assert kernel["transport"] == "ipc"
    sockets = [f"{kernel['ip']}-{kernel[f'{name}_port']}" for name in ("iopub", "shell", "control")]
    assert all(Path(path).is_socket() for path in sockets)
    ask = {
        "canaries": [kernel["key"]],
        "places": [account.pw_dir, *left_in_tmp(account)],
        "pids": [],
    }
    found = look(stranger, sockets=sockets, uid=account.pw_uid, **ask)
    # One port is left, at which a kernel takes what its children print, if they know its key.
    own = lab.run("import sys; print(sys.stdout.pub_thread._pipe_port)").strip()
    assert {str(port) for port in found["ports"]} <= {own}
    assert found["connected"] == []
    assert found["planted"] == []
    assert found["files"] == []
    # A does get there, so B was not kept out by a mistake in this test.
    assert look(account, sockets=sockets[:1], uid=0, **{**ask, "places": []})["connected"]


def test_nothing_of_a_server_can_be_read_or_reached(
    lab: Lab, account: pwd.struct_passwd, stranger: pwd.struct_passwd
) -> None:
    """AGT-06: no secret anywhere; AGT-01: the socket is closed and nothing can take its place."""
    host = lab.host
    canaries = [lab.secret, *host.keys.values(), lab.canary]
    sockets = [lab.path, str(host.base / "agent.sock")]
    found = look(
        stranger,
        canaries=canaries,
        sockets=sockets,
        places=["/var/log", "/run", account.pw_dir, str(host.base), *left_in_tmp(account)],
        pids=[lab.pid, host.agent_pid, host.keeper.pid if host.keeper else 0],
        uid=account.pw_uid,
    )
    assert found["files"] == []
    assert found["processes"] == []
    assert found["connected"] == []
    assert found["planted"] == []
    assert {name for seen in found["opened"].values() for name in seen} == set()
    assert host.report(lab.id)["state"] == "ready"


def test_its_owner_without_the_secret_is_nobody(lab: Lab, account: pwd.struct_passwd) -> None:
    """A process that gets at the socket, as the proxy's group may, still needs the secret."""
    connection = UnixConnection(lab.path)
    connection.request("GET", "/user/somebody/api/contents")
    with connection.getresponse() as reply:
        assert reply.status == 403
    connection.close()


def test_descriptors_are_the_declared_ones(lab: Lab) -> None:
    """AGT-05: of what keeper, zygote and agent have open a server has nothing."""
    for child in Path(f"/proc/{lab.pid}/task/{lab.pid}/children").read_text().split():
        targets = open_files(int(child)).values()
        assert not [t for t in targets if str(lab.host.state) in t and not t.endswith(".fifo")]
        assert not [t for t in targets if "memfd" in t]


def test_a_port_that_somebody_else_took_is_never_taken_for_a_server(
    host: AgentHost, stranger: pwd.struct_passwd
) -> None:
    """AGT-01 for servers that can only listen on a port: B takes it first, and gets nothing."""
    spec = host.spec("silent", listen="port", start_timeout_seconds=3)
    host.put(spec)
    (port,) = [r.port for r in host.records() if r.server_id == spec["server_id"]]
    program = (
        "import socket,sys; s=socket.socket(); s.bind(('127.0.0.1', int(sys.argv[1]))); s.listen();"
        "s.settimeout(60); print('listening', flush=True); c,_=s.accept(); print(c.recv(9))"
    )
    with subprocess.Popen(
        ["/usr/bin/python3", "-I", "-S", "-c", program, str(port)],
        user=stranger.pw_uid,
        group=stranger.pw_gid,
        extra_groups=[],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as squatter:
        assert squatter.stdout is not None
        assert squatter.stdout.readline() == "listening\n"
        assert host.wait_state(spec["server_id"], "failed")["exit"]["cause"] == "never_ready"
        squatter.kill()
        assert squatter.stdout.read() in ("", "b''\n"), "it may see a connection, and nothing on it"


def test_a_name_in_the_run_directory_cannot_be_had_while_servers_come_and_go(
    host: AgentHost, stranger: pwd.struct_passwd
) -> None:
    """AGT-01: B tries to bind where A's servers listen, for as long as those start and die.

    `tests/bench/squatter.py` does the same a thousand times.
    """
    assert come_and_go(host, stranger, cycles=30, agent_deaths=2, seed=1) == ""


def test_the_agent_refuses_every_call_from_a_shell(account: pwd.struct_passwd) -> None:
    """SEC-09: on a TCP port, which every account can reach, each endpoint wants the key."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with AgentHost(account, listen=f"127.0.0.1:{port}") as host:
        client = host.client = TcpClient(port)  # type: ignore[assignment]
        host.start()
        identity = "0123456789ab"
        calls = [
            ("GET", "/servers"),
            ("GET", f"/servers/{identity}"),
            ("PUT", f"/servers/{identity}"),
            ("POST", f"/servers/{identity}/stop"),
            ("PUT", f"/servers/{identity}/limits"),
            ("GET", f"/servers/{identity}/usage"),
            ("GET", f"/servers/{identity}/log"),
            ("GET", f"/servers/{identity}/log/stream"),
            ("DELETE", f"/servers/{identity}?generation=1"),
            ("POST", "/warm"),
            ("GET", "/../../etc/passwd"),
            ("OPTIONS", "/servers"),
        ]
        for headers in ({}, {"Authorization": "Bearer "}, {"Authorization": "Bearer " + "x" * 43}):
            for method, path in calls:
                reply = client.call(method, path, {}, headers)
                assert reply.status_code == 401, (method, path, reply.text)
        assert not host.records()
    with AgentHost(account, key="") as host:
        host.log.touch()
        with pytest.raises(AssertionError, match="key"):
            host.start()


class TcpClient:
    """The agent's client, over TCP."""

    def __init__(self, port: int) -> None:
        self.port = port

    def call(self, method: str, path: str, body: Any = None, headers: Any = None) -> Any:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        data = None if body is None else json.dumps(body)
        try:
            connection.request(method, f"/agent/v1{path}", data, headers or {})
            with connection.getresponse() as reply:
                return Answer(reply.status, reply.read().decode())
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        return self.call("GET", path)

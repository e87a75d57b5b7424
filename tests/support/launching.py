"""Starting servers by zygote or exec, with nothing of the agent's in between."""

import array
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import carrel_agent
from carrel_agent.process.launch_spec import LaunchSpec, write_launch_spec
from carrel_shared.identity import read_stat
from support.processes import adopting_orphans

SOURCE = str(Path(carrel_agent.__file__).parents[1])
EXEC_CHILD = (
    "import sys; sys.path.insert(0, sys.argv.pop(1));"
    "from carrel_agent.process.drop import exec_child_from as run; run(*map(int, sys.argv[1:]))"
)
START_SECONDS = 60


def build_spec(account: pwd.struct_passwd, **changes: Any) -> LaunchSpec:
    """Return a spec for this account, as an agent would make it."""
    spec = LaunchSpec(
        uid=account.pw_uid,
        gid=account.pw_gid,
        groups=tuple(os.getgrouplist(account.pw_name, account.pw_gid)),
        user=account.pw_name,
        home=account.pw_dir,
        shell=account.pw_shell,
        environment={
            "HOME": account.pw_dir,
            "USER": account.pw_name,
            "LOGNAME": account.pw_name,
            "SHELL": account.pw_shell,
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
        },
        base_url=f"/user/{account.pw_name}/",
        hub_prefix="/hub/",
        secret=secrets.token_hex(32),
        server_id=secrets.token_hex(6),
    )
    return replace(spec, **changes)


class UnixConnection(HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("lab.example", timeout=START_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


@dataclass
class Server:
    """A server that was started: how to reach it, and what became of it."""

    spec: LaunchSpec
    path: str
    log: Path
    pid: int = 0
    status: int | None = field(default=None, init=False)

    def request(
        self, method: str, path: str, body: str | None = None, **headers: str
    ) -> tuple[HTTPResponse, str]:
        """Ask below the server's prefix and return reply and text. No identity is added."""
        connection = UnixConnection(self.path)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, f"{self.spec.base_url}{path}", body, named)
            reply = connection.getresponse()
            return reply, reply.read().decode("utf-8", "replace")
        finally:
            connection.close()

    def visit(
        self, method: str, path: str, body: str | None = None, *, auth: str = "cookie", **more: str
    ) -> tuple[HTTPResponse, str]:
        """Ask as the proxy does for the server's owner."""
        identity = {
            "X_Carrel_Secret": self.spec.secret,
            "X_Carrel_User": json.dumps({"name": self.spec.user, "display_name": "Zoë Ω"}),
            "X_Carrel_Auth": auth,
        }
        return self.request(method, path, body, **{**identity, **more})

    def is_ready(self) -> bool:
        try:
            return self.request("GET", "api")[0].status == 200
        except OSError:
            return False

    def wait_until_ready(self, step: float = 0.005) -> None:
        """Return when it answers.

        Raises:
            AssertionError: With its log, if it ended or took too long.
        """
        deadline = time.monotonic() + START_SECONDS
        while not self.is_ready():
            assert self.poll() is None, f"ended with {self.status}:\n{self.log_text()}"
            assert time.monotonic() < deadline, f"not ready:\n{self.log_text()}"
            time.sleep(step)

    def poll(self) -> int | None:
        """Return its exit status (minus a signal's number), or None while it lives."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status

    def wait(self) -> int:
        """Return its exit status once it has ended."""
        deadline = time.monotonic() + START_SECONDS
        while (status := self.poll()) is None:
            assert time.monotonic() < deadline, f"still running:\n{self.log_text()}"
            time.sleep(0.005)
        return status

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.poll() is None:
            os.kill(self.pid, number)
        return self.wait()

    def log_text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def proc(self, name: str) -> str:
        return Path(f"/proc/{self.pid}/{name}").read_text(encoding="utf-8", errors="replace")


class Launcher:
    """Plays agent and keeper: binds sockets, starts servers, reaps them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._servers: list[Server] = []
        self._zygote: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._requests = 0

    def start_zygote(
        self,
        *wrapper: str,
        environment: dict[str, str] | None = None,
        python: str = sys.executable,
    ) -> None:
        """Start a zygote of this launcher's own, in an empty environment unless told otherwise."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, (self._directory / "zygote.log").open("ab") as log:
            self._zygote = subprocess.Popen(
                [*wrapper, python, "-I", "-m", "carrel_agent.zygote"],
                env={"LANG": "C.UTF-8", "PATH": "/usr/bin:/bin", **(environment or {})}
                | {"CARREL_ZYGOTE_FD": str(theirs.fileno())},
                pass_fds=[theirs.fileno()],
                stderr=log,
            )
        self._channel = ours

    @property
    def zygote_pid(self) -> int:
        assert self._zygote is not None
        return self._zygote.pid

    @property
    def zygote_log(self) -> str:
        return (self._directory / "zygote.log").read_text(encoding="utf-8")

    def end_zygote(self) -> int:
        """Close its socket, as the agent's and the keeper's end would, and return its status."""
        assert self._zygote is not None
        assert self._channel is not None
        self._channel.close()
        return self._zygote.wait(timeout=START_SECONDS)

    def ask_zygote(self, message: object, descriptors: list[int]) -> dict[str, Any]:
        """Send one request and return the reply."""
        assert self._channel is not None
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors).tobytes())
        self._channel.settimeout(60)
        self._channel.sendmsg([json.dumps(message).encode()], [rights] if descriptors else [])
        reply: dict[str, Any] = json.loads(self._channel.recv(4096))
        return reply

    def prepare(self, spec: LaunchSpec) -> tuple[Server, socket.socket]:
        """Make what the agent makes before a start: directory, bound socket, log."""
        place = self._directory / spec.server_id
        place.mkdir(mode=0o755)
        path = str(place / "s")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(path)
        log = place / "log"
        log.touch(mode=0o600)
        return Server(spec, path, log), listener

    def fork(self, spec: LaunchSpec) -> Server:
        """Start a server by the zygote."""
        server, listener = self.prepare(spec)
        self._requests += 1
        spec_fd = write_launch_spec(spec)
        with listener, server.log.open("ab") as log:
            reply = self.ask_zygote(
                {"op": "fork", "id": self._requests}, [spec_fd, listener.fileno(), log.fileno()]
            )
        os.close(spec_fd)
        assert reply["id"] == self._requests, reply
        assert "error" not in reply, reply
        server.pid = reply["pid"]
        self._servers.append(server)
        stat = read_stat(server.pid)
        assert stat is not None
        assert stat.start_ticks == reply["start_ticks"]
        return server

    def execute(self, spec: LaunchSpec, *wrapper: str, source: str = SOURCE) -> Server:
        """Start a server by exec, from a bare interpreter as the keeper is one.

        Args:
            spec: What to start.
            wrapper: A program that starts it in turn, such as strace with its options.
            source: The directory whose `carrel_agent` is used.
        """
        server, listener = self.prepare(spec)
        spec_fd = write_launch_spec(spec)
        with listener, server.log.open("ab") as log:
            descriptors = (spec_fd, listener.fileno(), log.fileno())
            command = [*wrapper, sys.executable, "-I", "-S", "-c", EXEC_CHILD, source]
            process = subprocess.Popen(
                [*command, *map(str, descriptors)],
                pass_fds=descriptors,
                env={"PATH": "/usr/bin:/bin", "CARREL_CANARY": "of the keeper"},
                stdin=subprocess.DEVNULL,
            )
        os.close(spec_fd)
        server.pid = process.pid
        process.returncode = 0  # reaped by Server.poll, not by subprocess
        self._servers.append(server)
        return server

    def close(self) -> None:
        """End everything that was started."""
        for server in self._servers:
            if server.poll() is None:
                server.stop(signal.SIGKILL)
        if self._channel is not None:
            self._channel.close()
        if self._zygote is not None:
            self._zygote.kill()
            self._zygote.wait()


def _reap_orphans() -> None:
    """Collect what the servers left behind, such as kernels."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


@contextmanager
def launcher() -> Iterator[Launcher]:
    """Yield a launcher that ends what it started. This process is the servers' parent meanwhile."""
    with adopting_orphans() as always:
        directory = Path(tempfile.mkdtemp(prefix="cz-", dir="/tmp"))
        directory.chmod(0o755)
        started = Launcher(directory)
        try:
            yield started
        finally:
            started.close()
            shutil.rmtree(directory, ignore_errors=True)
            if not always:
                _reap_orphans()

"""A real keeper with a real agent on directories of its own, and a hub that takes reports."""

import contextlib
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
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any, TypeVar

import carrel_agent
from carrel_agent.cgroups.group import Group, remove_tree
from carrel_agent.cgroups.host import directory_name
from carrel_agent.cgroups.mounts import read_mounts
from carrel_agent.supervise.process_tree import read_processes, signal_process
from carrel_agent.supervise.record import Record
from carrel_shared.identity import identify
from carrel_shared.service_auth import new_key, service_headers

KEEPER = Path(carrel_agent.__file__).parent / "keeper" / "main.py"
SMALL_SERVER = Path(__file__).with_name("small_server.py")
SECONDS = 60.0
T = TypeVar("T")


def wait_for(what: str, look: Callable[[], T | None], seconds: float = SECONDS) -> T:
    """Return the first thing `look` finds that is true."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} seconds for: {what}")
        time.sleep(0.01)
    return found


def has_ended(pid: int) -> bool:
    """Whether a process runs no more, reaped or not."""
    identity = identify(pid)
    return identity is None or not identity.is_alive()


def child_named(parent: int, words: str) -> int | None:
    """Return the child of a process that has these words in its command line."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            status = (entry / "stat").read_bytes()
            ppid = int(status[status.rindex(b")") + 2 :].split()[1])
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            if ppid == parent and words in command:
                return int(entry.name)
    return None


@dataclass(frozen=True)
class Answer:
    """What the agent answered."""

    status_code: int
    text: str

    def json(self) -> Any:
        return json.loads(self.text)


class AgentClient:
    """Calls the agent as the hub does, one connection a call."""

    def __init__(self, path: Path, key: str) -> None:
        self.path = str(path)
        self.headers = {**service_headers(key, "test"), "Content-Type": "application/json"}

    def call(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """Make one call.

        Raises:
            OSError: If the agent is away, or dies meanwhile.
        """
        connection = HTTPConnection("agent", timeout=SECONDS)
        with contextlib.closing(connection):
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(SECONDS)
            connection.sock.connect(self.path)
            data = None if body is None else json.dumps(body)
            all_headers = self.headers if headers is None else headers
            try:
                connection.request(method, f"/agent/v1{path}", data, all_headers)
                with connection.getresponse() as reply:
                    return Answer(reply.status, reply.read().decode())
            except HTTPException as error:
                raise ConnectionError(str(error)) from error

    @contextlib.contextmanager
    def stream(self, path: str) -> Iterator[Iterator[str]]:
        """Yield the lines of an answer as they come."""
        connection = HTTPConnection("agent", timeout=SECONDS)
        with contextlib.closing(connection):
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(SECONDS)
            connection.sock.connect(self.path)
            connection.request("GET", f"/agent/v1{path}", headers=self.headers)
            with connection.getresponse() as reply:
                assert reply.status == 200
                yield (line.decode().rstrip("\n") for line in iter(reply.readline, b""))

    def get(self, path: str) -> Answer:
        return self.call("GET", path)

    def put(self, path: str, body: object) -> Answer:
        return self.call("PUT", path, body)

    def post(self, path: str, body: object = None) -> Answer:
        return self.call("POST", path, body)

    def delete(self, path: str) -> Answer:
        return self.call("DELETE", path)


class FakeHub(ThreadingMixIn, UnixStreamServer):
    """Takes reports and answers what it is told to."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, path: Path) -> None:
        self.reports: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.forget: list[str] = []
        self.status = 200
        self.heartbeat_seconds = 1.0
        super().__init__(str(path), _Handler)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def end(self) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.reports.append({"path": self.path, **json.loads(data)})
        self.server.headers.append(dict(self.headers))
        answer = {
            "heartbeat_seconds": self.server.heartbeat_seconds,
            "forget": self.server.forget,
        }
        body = json.dumps(answer).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name upstream
        pass

    def address_string(self) -> str:
        return "unix"


class AgentHost:
    """One host. Use as a context manager; at its end nothing it started is left."""

    def __init__(
        self,
        account: pwd.struct_passwd,
        *,
        wrapper: Sequence[str] = (),
        agent: pwd.struct_passwd | None = None,
        **settings: str,
    ) -> None:
        self.account = account
        self._wrapper = wrapper
        self._agent = agent
        self.base = Path(tempfile.mkdtemp(prefix="ca", dir="/tmp"))
        self.base.chmod(0o755)
        self.state = self.base / "state"
        self.run = self.base / "run"
        self.keys = {"key": new_key(), "hub_key": new_key()}
        self.environment = {
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "CARREL_AGENT__LISTEN": f"unix:{self.base}/agent.sock",
            "CARREL_AGENT__KEY": self.keys["key"],
            "CARREL_AGENT__HUB_URL": f"unix:{self.base}/hub.sock",
            "CARREL_AGENT__HUB_KEY": self.keys["hub_key"],
            "CARREL_AGENT__STATE_DIR": str(self.state),
            "CARREL_AGENT__RUN_DIR": str(self.run),
            "CARREL_AGENT__INTERRUPT_SECONDS": "0.3",
            "CARREL_AGENT__TERMINATE_SECONDS": "0.3",
            **{f"CARREL_AGENT__{name.upper()}": value for name, value in settings.items()},
        }
        self.log = self.base / "log"
        self.keeper: subprocess.Popen[bytes] | None = None
        self.hub: FakeHub | None = None
        self.client = AgentClient(self.base / "agent.sock", self.keys["key"])
        self._ids: set[str] = set()

    def __enter__(self) -> "AgentHost":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self.hub is not None:
            self.hub.end()
        for record in self.records():  # a forked server's environment cannot be seen
            if record.handle is not None and record.handle.identity.is_alive():
                handle = record.handle
                signal_process(handle.pid, handle.start_ticks, signal.SIGKILL)
        for server_id in self._ids:
            for process in read_processes(server_id, self.account.pw_uid):
                if process.marked:
                    signal_process(process.pid, process.start_ticks, signal.SIGKILL)
        for record in self.records():
            if record.group is not None:
                Group.at(record.group).kill()
        for mount in read_mounts():
            for place in {mount.own_path, mount.point}:
                remove_tree(place / directory_name(self.state))
        shutil.rmtree(self.base)

    # -- its processes

    def start(self, **extra: str) -> "AgentHost":
        """Start the keeper and wait until the agent answers."""
        with self.log.open("ab") as log:
            self.keeper = subprocess.Popen(
                [*self._wrapper, sys.executable, "-I", "-S", str(KEEPER)],
                env={**self.environment, **extra},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self._identity(),
            )
        self.wait_healthy()
        return self

    def _identity(self) -> dict[str, Any]:
        """Return what makes the keeper the agent's account's."""
        who = self._agent
        if who is None:
            return {}
        os.chown(self.base, who.pw_uid, who.pw_gid)
        return {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": []}

    def stop(self) -> int:
        """Stop the keeper as a service manager would; return its exit status."""
        if self.keeper is None:
            return 0
        self.keeper.send_signal(signal.SIGTERM)
        status = self.keeper.wait(SECONDS)
        self.keeper = None
        return status

    def kill_keeper(self) -> None:
        """Kill the keeper; the agent notices and ends."""
        assert self.keeper is not None
        agent = self.agent_pid
        self.keeper.kill()
        self.keeper.wait(SECONDS)
        wait_for("the agent's end", lambda: has_ended(agent))

    @property
    def agent_pid(self) -> int:
        keeper = self.keeper
        assert keeper is not None
        return wait_for("the agent", lambda: child_named(keeper.pid, "carrel_agent serve"))

    def kill_agent(self, *, wait: bool = True) -> None:
        """Kill the agent; wait until the next one answers."""
        killed = self.agent_pid
        os.kill(killed, signal.SIGKILL)
        wait_for("its end", lambda: has_ended(killed))
        if wait:
            self.wait_healthy()

    def wait_healthy(self) -> None:
        def answers() -> bool:
            assert self.keeper is not None
            assert self.keeper.poll() is None, self.log.read_text()
            with contextlib.suppress(OSError):
                return self.client.get("/health").status_code == 200
            return False

        wait_for("an agent that answers", answers)

    def open_hub(self) -> FakeHub:
        self.hub = FakeHub(self.base / "hub.sock")
        return self.hub

    # -- its servers

    def spec(self, *mode: str, **changes: Any) -> dict[str, Any]:
        """Return a spec of a small server, or of JupyterLab when no mode is named."""
        spec: dict[str, Any] = {
            "server_id": secrets.token_hex(6),
            "generation": 1,
            "user": "somebody",
            "account": self.account.pw_name,
            "base_url": "/user/somebody/",
            "hub_prefix": "/hub/",
            "secret": new_key(),
        }
        if mode:
            spec["command"] = [sys.executable, "-I", "-S", str(SMALL_SERVER), *mode]
        spec.update(changes)
        self._ids.add(spec["server_id"])
        return spec

    def put(self, spec: dict[str, Any]) -> Answer:
        return self.client.put(f"/servers/{spec['server_id']}", spec)

    def ask_and_let_die(self, method: str, path: str, body: dict[str, Any]) -> None:
        """Ask for what kills the agent on its way; return when the next one answers."""
        agent = self.agent_pid
        with contextlib.suppress(OSError):
            self.client.call(method, path, body)
        wait_for("the agent's death", lambda: has_ended(agent))
        self.wait_healthy()

    def started(self, *mode: str, **changes: Any) -> dict[str, Any]:
        """Start a server and wait until it is ready, for the next agent too; return its report."""
        spec = self.spec(*mode, **changes)
        reply = self.put(spec)
        assert reply.status_code == 202, reply.text
        report = self.wait_state(spec["server_id"], "ready")
        self.wait_journal(spec["server_id"])
        return report

    def report(self, server_id: str) -> dict[str, Any]:
        reply = self.client.get(f"/servers/{server_id}")
        assert reply.status_code == 200, reply.text
        found: dict[str, Any] = reply.json()
        return found

    def wait_state(self, server_id: str, *states: str, seconds: float = SECONDS) -> dict[str, Any]:
        """Wait until a server is in one of these states; return its report."""
        seen: dict[str, Any] = {}

        def there() -> bool:
            nonlocal seen
            with contextlib.suppress(OSError):
                seen = self.report(server_id)
            return seen.get("state") in states

        try:
            wait_for(f"{states}", there, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}: {seen}\n{self.log.read_text()}") from None
        return seen

    def stop_server(self, server_id: str, generation: int = 1, **times: float) -> Answer:
        body = {"generation": generation, "reason": "a test asked", **times}
        return self.client.post(f"/servers/{server_id}/stop", body)

    def records(self) -> list[Record]:
        """Return what the journal holds."""
        return [
            Record.model_validate_json(path.read_bytes())
            for path in (self.state / "servers").glob("*.json")
        ]

    def wait_journal(self, *server_ids: str) -> None:
        """Wait until the next agent knows that these servers were ready: it is told before."""

        def ready() -> set[str]:
            return {record.server_id for record in self.records() if record.ready_at}

        wait_for("the journal", lambda: set(server_ids) <= ready())

    def wait_line(self, server_id: str, words: str) -> list[str]:
        """Wait until a server's output has a line with these words; return it all.

        The keeper reads it, so an agent that knows a server is ready may not have it yet.
        """

        def said() -> list[str]:
            lines = self.lines(server_id, 200)
            return lines if any(words in line for line in lines) else []

        return wait_for(words, said)

    def lines(self, server_id: str, lines: int = 50) -> list[str]:
        reply = self.client.get(f"/servers/{server_id}/log?lines={lines}")
        found: list[str] = reply.json()["lines"]
        return found


@contextlib.contextmanager
def running_host(
    account: pwd.struct_passwd,
    *,
    wrapper: Sequence[str] = (),
    agent: pwd.struct_passwd | None = None,
    **settings: str,
) -> Iterator[AgentHost]:
    """Yield a host whose agent answers.

    Args:
        account: Whose servers it runs.
        wrapper: A program that executes the keeper in turn.
        agent: The account that agent and keeper run as, if not the caller's.
        settings: Of the agent, by name.
    """
    with AgentHost(account, wrapper=wrapper, agent=agent, **settings) as host:
        yield host.start()

"""Three hosts, a hub and an edge on one machine, that share nothing but wires.

Each host is a network namespace, with a cable to the hub's, and a mount namespace in which the same
paths are its own directories and the kernel's boot id is another.
"""

import http.client
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from clients.kernels import Kernel, open_kernel

from carrel_agent.supervise.process_tree import read_processes, signal_process
from carrel_shared.service_auth import new_key
from support.accounts import Account, temporary_account
from support.processes import kill_leftovers

SMALL_SERVER = Path(__file__).with_name("small_server.py")
SECONDS = 90.0
SILENCE_SECONDS = 8
FLEET_PORT = 8444
SERVICE_PORT = 9123
T = TypeVar("T")


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def wait_for(what: str, look: Callable[[], T | None], seconds: float = SECONDS) -> T:
    """Return the first thing `look` finds that is true."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} seconds for: {what}")
        time.sleep(0.05)
    return found


@dataclass
class Host:
    """One host: `holder` is the process that keeps its namespaces."""

    name: str
    number: int
    fleet: "Fleet"
    holder: int = 0
    agent: subprocess.Popen[bytes] | None = None
    relay: subprocess.Popen[bytes] | None = None

    @property
    def hub_address(self) -> str:
        return f"10.213.{self.number}.1"

    @property
    def address(self) -> str:
        return f"10.213.{self.number}.2"

    @property
    def log(self) -> str:
        return (self.fleet.base / f"{self.name}.log").read_text(errors="replace")

    def command(self, *words: str, uid: int | None = None) -> list[str]:
        """Return a command as it is run on this host."""
        switch = [] if uid is None else ["-S", str(uid), "-G", str(uid)]
        return ["nsenter", "-t", str(self.holder), "-n", "-m", *switch, *words]

    def carrel_agent(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run `carrel-agent` to its end."""
        return subprocess.run(
            self.command(sys.executable, "-I", "-m", "carrel_agent", *words, *self._places),
            env=self.fleet.environ,
            input=stdin,
            text=True,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )

    @property
    def _places(self) -> tuple[str, ...]:
        here = self.fleet.here
        return (
            *("--config-dir", f"{here}/etc"),
            *("--state-dir", f"{here}/state"),
            *("--run-dir", f"{here}/run"),
        )

    def join(self, *more: str) -> subprocess.CompletedProcess[str]:
        """Join with a fresh token."""
        return self.carrel_agent(
            "join",
            f"https://{self.hub_address}:{FLEET_PORT}",
            *("--address", self.address, "--account", self.fleet.relay_account.name, *more),
            stdin=self.fleet.join_token(self.name),
        )

    def start(self) -> None:
        """Start relay and agent, as systemd would."""
        etc = f"{self.fleet.here}/etc"
        uid = pwd.getpwnam(self.fleet.relay_account.name).pw_uid
        self.relay = self._spawn("carrel_proxy", "--config", f"{etc}/relay.toml", uid=uid)
        self.start_agent()

    def start_agent(self) -> None:
        etc = f"{self.fleet.here}/etc"
        self.agent = self._spawn("carrel_agent", "--config", f"{etc}/agent.toml", "keeper")

    def _spawn(self, *words: str, uid: int | None = None) -> subprocess.Popen[bytes]:
        with (self.fleet.base / f"{self.name}.log").open("ab") as log:
            return subprocess.Popen(
                self.command(sys.executable, "-I", "-m", *words, uid=uid),
                env=self.fleet.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def stop(self) -> None:
        for process in (self.agent, self.relay):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(SECONDS)

    def cut(self) -> None:
        """Pull the cable."""
        ip("-n", self.fleet.middle, "link", "set", f"to-{self.number}", "down")

    def mend(self) -> None:
        """Put it back."""
        ip("-n", self.fleet.middle, "link", "set", f"to-{self.number}", "up")


@dataclass
class Fleet:
    """A hub, an edge, and the hosts.

    Attributes:
        here: Where every host has its own directory, under the same name.
        middle: The namespace of hub and edge.
    """

    base: Path
    relay_account: Account
    people: list[Account]
    middle: str
    environ: dict[str, str] = field(default_factory=lambda: {"PATH": os.environ["PATH"]})
    console_key: str = field(default_factory=new_key)
    hosts: list[Host] = field(default_factory=list)
    token: str = ""

    @property
    def here(self) -> Path:
        return self.base / "host"

    def in_middle(self, *words: str) -> list[str]:
        return ["ip", "netns", "exec", self.middle, sys.executable, "-I", "-m", *words]

    def write_settings(self) -> None:
        base, keys = self.base, [new_key() for _ in range(3)]
        words = [sys.executable, str(base / "small_server.py")]
        (base / "carrel.toml").write_text(
            f"""
[hub]
listen = "unix:{base}/hub.sock"
internal_listen = "unix:{base}/internal.sock"
fleet_listen = "0.0.0.0:{FLEET_PORT}"
state_dir = "{base}/hub"
console_key = "{self.console_key}"
agent_silence_seconds = {SILENCE_SECONDS}
slow_spawn_seconds = 30

api_url = "http://127.0.0.1:1/hub/api"

[[hub.services]]
name = "notes"
host = "rack-2"
user = "{self.people[-1].name}"
url = "http://127.0.0.1:{SERVICE_PORT}"
command = {json.dumps([*words, "port"])}

[hub.profiles.default]
command = {json.dumps([*words, "good"])}

[hub.profiles.lab.limits]
memory = "2G"

[[hub.proxies]]
name = "edge"
url = "unix:{base}/edge-control.sock"
key = "{keys[0]}"
caller_key = "{keys[1]}"

[proxy]
bind = "unix:{base}/public.sock"
control_listen = "unix:{base}/edge-control.sock"
control_key = "{keys[0]}"
hub_url = "unix:{base}/internal.sock"
hub_key = "{keys[1]}"
state_dir = "{base}/edge"
connect_seconds = 2
""",
            encoding="utf-8",
        )

    def console(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Ask the hub as `carrel up` does."""
        headers = {"Authorization": f"Bearer {self.console_key}", "Carrel-Wire": "1"}
        place = f"/internal/v1/console/{path}"
        _, reply = self._json(self.base / "internal.sock", "POST", place, body, headers)
        assert isinstance(reply, dict)
        return reply

    def join_token(self, name: str) -> str:
        """Return what `carrel-hub token agent NAME` prints."""
        return self._token("agent", name)

    def _token(self, *of: str) -> str:
        done = subprocess.run(
            self.in_middle("carrel_hub", "--config", str(self.base / "carrel.toml"), "token", *of),
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def have_edge_enrol(self) -> None:
        """Put what `carrel-hub token proxy edge` prints into its settings."""
        file = self.base / "carrel.toml"
        line = self._token("proxy", "edge").replace("THIS_MACHINE", "127.0.0.1")
        file.write_text(file.read_text(encoding="utf-8") + line, encoding="utf-8")

    def api(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Call the REST API as an administrator, through the edge."""
        return self.public(method, f"/hub/api{path}", body)

    def public(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        headers = {"Authorization": f"token {self.token}", "Host": "hub.test"}
        return self._json(self.base / "public.sock", method, path, body, headers)

    @staticmethod
    def _json(
        path: Path, method: str, url: str, body: Any, headers: dict[str, str]
    ) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("carrel", timeout=SECONDS)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(SECONDS)
        connection.sock.connect(str(path))
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, url, data, {**headers, "Content-Type": "application/json"})
            reply = connection.getresponse()
            text = reply.read()
        finally:
            connection.close()
        try:
            return reply.status, json.loads(text or b"{}")
        except ValueError:
            return reply.status, {"text": text.decode(errors="replace")}

    def shown(self, name: str) -> dict[str, Any]:
        """Return a host as the API shows it."""
        _, reply = self.api("GET", "/hosts")
        return next((one for one in reply["hosts"] if one["name"] == name), {})

    def server(self, person: Account) -> dict[str, Any]:
        """Return what the hub knows of somebody's server."""
        _, user = self.api("GET", f"/users/{person.name}")
        found: dict[str, Any] = user["servers"].get("", {}).get("state") or {}
        return found

    def channels(self, person: Account, kernel: str) -> AbstractContextManager[Kernel]:
        """Open a kernel's channels, through the edge."""
        url = f"ws://hub.test/user/{person.name}/api/kernels/{kernel}/channels"
        headers = {"Authorization": f"token {self.token}"}
        return open_kernel(url, headers, str(self.base / "public.sock"))

    def visit(self, person: Account) -> tuple[int, Any]:
        """Ask somebody's server who it is."""
        return self.public("GET", f"/user/{person.name}/")


def _socket_answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


@contextmanager
def fleet(hosts: int = 3, people: int = 3) -> Iterator[Fleet]:
    """Make it all; nothing of it is left at the end. Needs root and iproute2."""
    base = Path(tempfile.mkdtemp(prefix="cfl", dir="/tmp"))
    base.chmod(0o755)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, base, ignore_errors=True)
        stack.callback(kill_leftovers, base)
        relay = stack.enter_context(temporary_account("relay"))
        accounts = [stack.enter_context(temporary_account(f"p{n}")) for n in range(people)]
        made = Fleet(base, relay, accounts, middle=f"carrel-m-{os.getpid()}")
        made.here.mkdir()
        shutil.copy(SMALL_SERVER, base)
        (base / "small_server.py").chmod(0o644)
        ip("netns", "add", made.middle)
        stack.callback(ip, "netns", "delete", made.middle)
        ip("-n", made.middle, "link", "set", "lo", "up")
        made.write_settings()
        _start_middle(made, stack)
        for number in range(1, hosts + 1):
            made.hosts.append(stack.enter_context(_host(made, f"rack-{number}", number)))
        stack.callback(_end_servers, made)
        yield made


def _start_middle(made: Fleet, stack: ExitStack) -> None:
    base, config = made.base, str(made.base / "carrel.toml")
    subprocess.run(
        made.in_middle("carrel_hub", "--config", config, "db", "upgrade"),
        env=made.environ,
        check=True,
        capture_output=True,
    )
    _program(made, stack, "hub", "carrel_hub", "--config", config, "serve")
    wait_for("the hub", lambda: _socket_answers(base / "internal.sock"))
    made.have_edge_enrol()
    _program(made, stack, "edge", "carrel_proxy", "--config", config)
    wait_for("the edge", lambda: _socket_answers(base / "public.sock"))
    made.console("link", {"user": "boss", "admin": True, "account": None})
    made.token = made.console("token", {"user": "boss"})["token"]
    wait_for("the way to the hub", lambda: made.api("GET", "/hosts")[0] == 200)


def _program(made: Fleet, stack: ExitStack, name: str, *words: str) -> None:
    with (made.base / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            made.in_middle(*words),
            env=made.environ,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    stack.callback(process.wait, SECONDS)
    stack.callback(process.terminate)


@contextmanager
def _host(made: Fleet, name: str, number: int) -> Iterator[Host]:
    host = Host(name, number, made)
    with ExitStack() as stack:
        space = stack.enter_context(wired(host))
        own, boot = made.base / name, made.base / f"{name}.boot"
        own.mkdir()
        boot.write_text(f"00000000-0000-0000-0000-{number:012}\n")
        with _held(
            space, [(own, made.here), (boot, Path("/proc/sys/kernel/random/boot_id"))]
        ) as pid:
            host.holder = pid
            stack.callback(host.stop)
            yield host
            stack.close()


@contextmanager
def wired(host: Host) -> Iterator[str]:
    """Make a network namespace with a cable to the hub's; yield its name."""
    middle, end, space = (
        host.fleet.middle,
        f"to-{host.number}",
        f"carrel-{host.number}-{os.getpid()}",
    )
    ip("netns", "add", space)
    try:
        ip("-n", space, "link", "set", "lo", "up")
        ip("-n", middle, "link", "add", end, "type", "veth", "peer", "hub", "netns", space)
        ip("-n", middle, "address", "add", f"{host.hub_address}/24", "dev", end)
        ip("-n", middle, "link", "set", end, "up")
        ip("-n", space, "address", "add", f"{host.address}/24", "dev", "hub")
        ip("-n", space, "link", "set", "hub", "up")
        yield space
    finally:
        ip("netns", "delete", space)


@contextmanager
def _held(space: str, binds: Sequence[tuple[Path, Path]]) -> Iterator[int]:
    """Keep a mount namespace in a network namespace; yield who keeps it."""
    mounts = [f"mount --bind {source} {target}" for source, target in binds]
    script = " && ".join(["mount --make-rprivate /", *mounts, "echo ready", "exec cat"])
    process = subprocess.Popen(
        ["ip", "netns", "exec", space, "unshare", "--mount", "sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield process.pid
    finally:
        process.stdin.close()
        process.wait(SECONDS)
        process.stdout.close()


def _end_servers(made: Fleet) -> None:
    for person in made.people:
        uid = pwd.getpwnam(person.name).pw_uid
        for process in read_processes("", uid):
            signal_process(process.pid, process.start_ticks, signal.SIGKILL)

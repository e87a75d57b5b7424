"""A real keeper with a test in the agent's place."""

import itertools
import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import carrel_agent
from carrel_agent.keeper.messages import Message, close_all, encode, receive, send
from carrel_agent.process.launch_spec import LaunchSpec, write_launch_spec
from support.agent_host import SECONDS, child_named, has_ended, wait_for

SOURCE = Path(carrel_agent.__file__).parents[1]
KEEPER = f"""
import sys
sys.path.insert(0, {str(SOURCE)!r})
from carrel_agent.keeper.keeper import Keeper
from carrel_agent.keeper.options import Options
from carrel_agent.keeper.process_table import become_subreaper
import os
become_subreaper()
seconds = float(os.environ.get("STOP_SECONDS", 5))
sys.exit(Keeper(Options(sys.argv[1], sys.argv[2:]), dict(os.environ), stop_seconds=seconds).run())
"""
STAND_IN = """
import os, signal, socket, sys
fd = int(os.environ["CARREL_KEEPER_FD"])
desk = socket.socket(socket.AF_UNIX)
desk.connect(sys.argv[1])
words = os.environ.get("CARREL_FAILPOINT", "-").encode()
socket.send_fds(desk, [words], [fd])
os.close(fd)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
code = desk.recv(10)
sys.exit(int(code or b"1"))
"""


class Agent:
    """One life of the agent: a process that only lives, and its channel, which is the test's."""

    def __init__(self, desk: socket.socket) -> None:
        words, (descriptor,), _, _ = socket.recv_fds(desk, 100, 1)
        self.desk = desk
        self.failpoint = words.decode()
        self.channel = socket.socket(fileno=descriptor)
        self.channel.settimeout(SECONDS)
        self.events: list[Message] = []
        self._ids = itertools.count(1)

    def ask(self, op: str, fds: Sequence[int] = (), **fields: object) -> tuple[Message, list[int]]:
        """Send a request; return the reply and its descriptors."""
        number = next(self._ids)
        send(self.channel, encode({"op": op, "id": number, **fields}), fds)
        while True:
            message, descriptors = self._next()
            if message.get("id") == number:
                return message, descriptors
            self.events.append(message)

    def event(self) -> Message:
        """Return the next message nobody asked for."""
        return self.events.pop(0) if self.events else self._next()[0]

    def _next(self) -> tuple[Message, list[int]]:
        received = receive(self.channel)
        assert received is not None, "the keeper has closed the channel"
        return received

    def end(self, status: int) -> None:
        """Let this life of the agent end by itself."""
        self.desk.sendall(str(status).encode())

    def close(self) -> None:
        self.channel.close()
        self.desk.close()


class KeeperUnderTest:
    """Starts keepers on one state directory."""

    def __init__(self) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="ck", dir="/tmp"))
        self.state = self.base / "state"
        self.state.mkdir(mode=0o700)
        self.desk = socket.socket(socket.AF_UNIX)
        self.desk.bind(str(self.base / "desk"))
        self.desk.listen()
        self.desk.settimeout(SECONDS)
        self.process: subprocess.Popen[bytes] | None = None
        self.agents: list[Agent] = []
        self.started: list[int] = []

    def start(self, **environment: str) -> Agent:
        """Start a keeper; return its first agent."""
        stand_in = [sys.executable, "-I", "-S", "-c", STAND_IN, str(self.base / "desk")]
        with (self.base / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", KEEPER, str(self.state), *stand_in],
                env={"PATH": "/usr/bin:/bin", **environment},
                stderr=log,
                start_new_session=True,
            )
        return self.next_agent()

    def next_agent(self) -> Agent:
        """Wait for the agent that the keeper starts next."""
        connection, _ = self.desk.accept()
        self.agents.append(Agent(connection))
        return self.agents[-1]

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def agent_pid(self) -> int:
        return wait_for("the agent", lambda: child_named(self.pid, "CARREL_KEEPER_FD"))

    def kill_agent(self) -> None:
        os.kill(self.agent_pid(), signal.SIGKILL)

    def kill(self) -> None:
        """Kill the keeper, as if it had crashed."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(SECONDS)

    def log(self) -> str:
        return (self.base / "log").read_text()

    def execute(self, agent: Agent, *argv: str, log_id: str = "0123456789ab") -> Message:
        """Have a program executed as if it were a server."""
        uid, gid = (60000, 60000) if os.geteuid() == 0 else (os.getuid(), os.getgid())
        spec = LaunchSpec(  # noqa: S604 - its `shell` is a login shell
            uid=uid,
            gid=gid,
            groups=(gid,) if os.geteuid() == 0 else tuple(os.getgroups()),
            user="somebody",
            home="/",
            shell="/bin/sh",
            environment={"PATH": "/usr/bin:/bin"},
            base_url="/user/somebody/",
            hub_prefix="/hub/",
            secret=secrets.token_hex(32),
            server_id=log_id,
            argv=argv,
        )
        memfd = write_launch_spec(spec)
        with socket.socket(socket.AF_UNIX) as listener:
            reply, _ = agent.ask("exec", (memfd, listener.fileno()), log=log_id)
        os.close(memfd)
        if "pid" in reply:
            self.started.append(reply["pid"])
        return reply

    def close(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(SECONDS)
        for pid in self.started:
            if not has_ended(pid):
                os.killpg(pid, signal.SIGKILL)
        for agent in self.agents:
            agent.close()
        self.desk.close()
        shutil.rmtree(self.base)


@pytest.fixture
def keeper() -> Iterator[KeeperUnderTest]:
    under_test = KeeperUnderTest()
    yield under_test
    under_test.close()


def readable(descriptor: int) -> bool:
    return bool(select.select([descriptor], [], [], 0)[0])


__all__ = ["Agent", "KeeperUnderTest", "close_all", "readable"]

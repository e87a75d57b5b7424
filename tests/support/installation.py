"""A whole Carrel for one test module: `carrel up` as a real process, and cleaned up after."""

import http.client
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from carrel_hub.up.console import HubConsole, Notebook, call, is_up
from carrel_hub.up.errors import UpError
from carrel_hub.up.layout import Layout
from carrel_hub.up.plan import Probe
from carrel_hub.up.record import read_record
from carrel_shared.identity import identify
from carrel_shared.wire import WIRE_HEADER, WIRE_VERSION
from support.ports import free_port
from support.processes import child_of, is_alive, kill_leftovers, wait_until

START_SECONDS = 90
_READY = re.compile(r"within ten minutes:\n +(\S+)\n")
_PROBES = {
    "hub": ("hub/internal.sock", "/internal/v1/health"),
    "proxy": ("proxy/control.sock", "/control/v1/health"),
    "agent": ("agent/agent.sock", "/agent/v1/health"),
}
_MODULES = {"agent": "carrel_agent\0", "zygote": "zygote"}


class Installation:
    """`carrel up` with directories and a port of its own. Use it as a context manager.

    Args:
        user: As root, the unix account of the person at the console.
        demo: Pass `--demo`.
        toml: The text of `carrel.toml`.
        environ: Further variables for `carrel up`.
        options: Further words of its command line.
        port: The public port; a free one without it.
        run_as: As root, the account that `carrel up` itself runs as.
        program: What is run in place of `carrel`.
    """

    def __init__(
        self,
        *,
        user: str | None = None,
        demo: bool = False,
        toml: str = "",
        environ: Mapping[str, str] | None = None,
        options: tuple[str, ...] = (),
        port: int | None = None,
        run_as: str | None = None,
        program: tuple[str, ...] = (sys.executable, "-m", "carrel_hub.up"),
    ) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="c", dir="/tmp"))
        self.base.chmod(0o755)
        self.state_dir = self.base / "state"
        self.run_dir = self.base / "run"
        self.layout = Layout(self.state_dir, self.run_dir)
        self.port = port or free_port()
        self._user, self._demo, self._options = user, demo, options
        self._toml, self._environ = toml, dict(environ or {})
        self._program = program
        self._up: subprocess.Popen[bytes] | None = None
        self._as: dict[str, Any] = {}
        if run_as is not None:
            entry = pwd.getpwnam(run_as)
            self._as = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
            self._environ |= {"HOME": entry.pw_dir, "USER": run_as}
            os.chown(self.base, entry.pw_uid, entry.pw_gid)
        self._output = self.base / "up.out"
        self.link = ""

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
        self.clean()

    # --- life of `carrel up` ---

    def start(self, *, wait: bool = True) -> None:
        """Start `carrel up`, and wait until it has printed its link."""
        words = ["--run-dir", str(self.run_dir), "--bind", f"127.0.0.1:{self.port}"]
        if self._user:
            words += ["--user", self._user]
        if self._demo:
            words += ["--demo"]
        if self._toml:
            config = self.base / "carrel.toml"
            config.write_text(self._toml)
            words += ["--config", str(config)]
        with self._output.open("wb") as output:
            self._up = subprocess.Popen(
                [*self._command("up"), *words, *self._options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._cli_environment() | self._environ,
                start_new_session=True,
                cwd="/",
                **self._as,
            )
        if wait:
            self.wait_for_link()

    def wait_for_link(self) -> None:
        """Return when `carrel up` has printed its link."""

        def printed() -> bool:
            assert self._up is not None
            found = _READY.search(self.output())
            if found is None and self._up.poll() is not None:
                raise AssertionError(f"carrel up ended:\n{self.output()}")
            self.link = found[1] if found else ""
            return found is not None and "Another link:" in self.output()

        wait_until(printed, START_SECONDS, lambda: f"no link:\n{self.output()}")

    def output(self) -> str:
        """Return what `carrel up` has printed since it was started last."""
        return self._output.read_text(errors="replace")

    def send(self, number: signal.Signals) -> None:
        """Send `carrel up` a signal."""
        os.kill(self.up_pid, number)

    def wait_for_end(self, seconds: float = START_SECONDS) -> int:
        """Return the exit status of `carrel up` once it has ended."""
        assert self._up is not None
        return self._up.wait(seconds)

    def kill_up(self) -> None:
        """End `carrel up` with SIGKILL; services and notebooks are left."""
        self.send(signal.SIGKILL)
        self.wait_for_end()

    def restart_up(self) -> None:
        """Kill `carrel up` and start another on the same state."""
        self.kill_up()
        self.start()

    def stop(self) -> int:
        """End it as Ctrl-C does; return the exit status."""
        self.send(signal.SIGINT)
        return self.wait_for_end()

    def run_cli(
        self, command: str, *words: str, environ: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run another `carrel` command on the same state."""
        done: subprocess.CompletedProcess[str] = subprocess.run(
            [*self._command(command), *words],
            check=False,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            env=self._cli_environment() | self._environ | dict(environ or {}),
            cwd="/",
            **self._as,
        )
        return done

    def _command(self, command: str) -> list[str]:
        return [
            *(*self._program, command),
            *("--state-dir", str(self.state_dir)),
        ]

    def _cli_environment(self) -> dict[str, str]:
        dropped = ("CARREL_", "XDG_", "SUDO_")
        return {k: v for k, v in os.environ.items() if not k.startswith(dropped)}

    # --- what a person has ---

    @property
    def url(self) -> str:
        record = read_record(self.layout.record)
        assert record is not None
        return record.url

    @property
    def user(self) -> str:
        """Who signs in by the link."""
        record = read_record(self.layout.record)
        assert record is not None
        return record.person

    def new_link(self, name: str | None = None) -> str:
        """Return another one-time link, for `name` or the person at the console."""
        done = self.run_cli("link", *(["--user", name] if name else []))
        assert done.returncode == 0, done.stderr
        return str(done.stdout.split()[-1])

    def new_token(self, name: str | None = None) -> str:
        """Return an API token, made as the operator would, with the hub's own command."""
        pid = self.pid_of("hub")
        raw = Path(f"/proc/{pid}/environ").read_text()
        environ = dict(pair.split("=", 1) for pair in raw.split("\0") if pair)
        config = ["--config", str(self.base / "carrel.toml")] if self._toml else []
        owner = Path(f"/proc/{pid}").stat()
        as_hub: dict[str, Any] = {}
        if os.geteuid() == 0:
            as_hub = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
        done: subprocess.CompletedProcess[str] = subprocess.run(
            [sys.executable, "-I", "-m", "carrel_hub", *config, "token", name or self.user],
            check=False,
            capture_output=True,
            text=True,
            env=environ,
            cwd="/",
            **as_hub,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split()[-1]

    def keys(self) -> list[str]:
        """Return every service key, to look for where none may be."""
        return [str(key) for key in json.loads(self.layout.keys.read_text()).values()]

    def _key(self, name: str) -> str:
        return str(json.loads(self.layout.keys.read_text())[name])

    def log_text(self) -> str:
        """Return the merged log."""
        return self.layout.log.read_text(errors="replace")

    # --- processes ---

    @property
    def up_pid(self) -> int:
        assert self._up is not None
        return self._up.pid

    def find_pid(self, name: str) -> int | None:
        """Return the pid of `up`, a service, `agent` or `zygote`; None if it does not run."""
        if name == "up":
            return self.up_pid if self._up is not None and self._up.poll() is None else None
        if name in ("agent", "zygote"):
            keeper = self.find_pid("keeper")
            return None if keeper is None else child_of(keeper, _MODULES[name])
        record = read_record(self.layout.record)
        service = record.services.get(name) if record else None
        return service.identity.pid if service and service.identity.is_alive() else None

    def pid_of(self, name: str) -> int:
        """Return the pid of `up`, a service, `agent` or `zygote`."""
        pid = self.find_pid(name)
        assert pid is not None, f"{name} does not run:\n{self.output()}"
        return pid

    def server_pids(self) -> list[int]:
        """Return the pids of the notebook servers, as the agent reports them."""
        key = self._key("hub_to_agent")
        headers = {"Authorization": f"Bearer {key}", WIRE_HEADER: str(WIRE_VERSION)}
        status, raw = call(self.layout.agent, "GET", "/agent/v1/servers", headers=headers)
        assert status == 200, raw
        servers = json.loads(raw)["servers"]
        return [server["pid"] for server in servers if server["pid"] and not server["exit"]]

    def kill(self, name: str) -> None:
        """End a process with SIGKILL; returns when it is gone. It is for others to start it.

        A proxy is gone when its workers have noticed: until then they answer on its address.
        """
        identity = identify(self.pid_of(name))
        assert identity is not None
        pids = [identity.pid]
        if name == "proxy":
            children = Path(f"/proc/{identity.pid}/task/{identity.pid}/children")
            pids += map(int, children.read_text().split())
        os.kill(identity.pid, signal.SIGKILL)
        wait_until(
            lambda: not any(map(is_alive, pids)), START_SECONDS, lambda: f"{name} does not die"
        )

    @contextmanager
    def paused(self, name: str) -> Iterator[None]:
        """Hold a process still, so that it answers nobody."""
        pid = self.pid_of(name)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    # --- waiting ---

    def wait_until_healthy(self) -> None:
        """Return when hub, proxy and agent answer, and the hub through the proxy."""

        def healthy() -> bool:
            return (
                all(is_up(Probe(self.run_dir / where, path)) for where, path in _PROBES.values())
                and self._public_status(f"{self._base_path()}hub/health") == 200
            )

        wait_until(healthy, START_SECONDS, lambda: f"not healthy:\n{self.output()}")

    def wait_for_port(self) -> None:
        """Return when somebody accepts connections at the public address."""
        wait_until(
            lambda: self._public_status("/_carrel/health") == 200,
            START_SECONDS,
            lambda: f"nobody listens on {self.port}:\n{self.output()}",
        )

    def notebooks(self) -> list[Notebook]:
        """Return the servers that are not stopped, as the hub knows."""
        return HubConsole(self.layout.hub_internal, self._key("console")).notebooks()

    def wait_until_ready(self) -> None:
        """Return when there are notebook servers and all of them are ready."""
        self._wait_for_notebooks(lambda found: {n.state for n in found} == {"ready"})

    def wait_until_stopped(self) -> None:
        """Return when no notebook server runs."""
        self._wait_for_notebooks(lambda found: not found)

    def wait_until_saved(self, name: str) -> None:
        """Return when the proxy has written down that somebody may pass."""
        file = self.state_dir / "proxy" / "verdicts.json"
        wait_until(
            lambda: file.exists() and name in file.read_text(),
            START_SECONDS,
            lambda: f"{file} has no {name}",
        )

    def _wait_for_notebooks(self, condition: Callable[[list[Notebook]], bool]) -> None:
        last: list[Notebook] = []

        def holds() -> bool:
            nonlocal last
            with suppress(UpError):
                last = self.notebooks()
                return condition(last)
            return False

        wait_until(holds, START_SECONDS, lambda: f"notebooks are {last}:\n{self.output()}")

    def _base_path(self) -> str:
        record = read_record(self.layout.record)
        return record.base_url if record else "/"

    def _public_status(self, path: str) -> int | None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    # --- leaving nothing ---

    def clean(self) -> None:
        """End every process of it, politely first, and remove its directories."""
        try:
            if self._up is not None and self._up.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    self.stop()
            if self._up is not None and self._up.poll() is None:
                self._up.kill()
                self._up.wait()
        finally:
            for _ in range(5):  # what is ended may have been about to start another
                if not kill_leftovers(self.base):
                    break
            shutil.rmtree(self.base, ignore_errors=True)

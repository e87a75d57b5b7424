"""A real systemd, booted in namespaces of its own on a copy-on-write view of this machine."""

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from carrel_agent.cgroups.group import remove_tree
from support.agent_host import wait_for

SCRIPT = Path(__file__).with_name("boot-systemd.sh")
SHUT_DOWN = signal.SIGRTMIN + 4
BOOT_SECONDS = 60.0
ALL = ("-n", "-m", "-p", "-i", "-u", "-C", "--root", "--wd")
"""How `nsenter` is told to enter everything."""


@dataclass
class Booted:
    """The namespaces of a systemd, by its pid out here."""

    pid: int

    def run(
        self, *command: str, env: dict[str, str] | None = None, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in there, with this environment and nothing else."""
        inside = ("nsenter", "-t", str(self.pid), *ALL)
        clean = ("/usr/bin/env", "-i", *(f"{k}={v}" for k, v in (env or {}).items()))
        return subprocess.run(
            [*inside, *clean, *command],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )


@contextlib.contextmanager
def booted_systemd(network: str = "") -> Iterator[Booted]:
    """Boot one, in a named network namespace or this machine's; it is shut down at the end."""
    into = ["nsenter", f"--net=/run/netns/{network}"] if network else []
    name = f"carrel-boot-{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix="cb") as directory:
        log = Path(directory, "log")
        root = Path(directory, "root")
        root.mkdir()
        with log.open("wb") as output:
            boot = subprocess.Popen(
                [*into, SCRIPT, name, str(root)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        found = Booted(0)
        try:

            def is_up() -> bool:
                assert boot.poll() is None, log.read_text(errors="replace")
                children = Path(f"/proc/{boot.pid}/task/{boot.pid}/children").read_text().split()
                if not children:
                    return False
                found.pid = int(children[0])
                state = found.run("systemctl", "is-system-running", env={"PATH": "/usr/bin:/bin"})
                return state.stdout.strip() in ("running", "degraded")

            wait_for("a systemd that is up", is_up, BOOT_SECONDS)
            yield found
        finally:
            if found.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(found.pid, SHUT_DOWN)
            try:
                boot.wait(BOOT_SECONDS)
            except subprocess.TimeoutExpired:
                boot.kill()
                boot.wait()
            for place in Path("/sys/fs/cgroup").iterdir():
                remove_tree(place / name)

"""The systemd runner under a real systemd, which passes what every runner passes."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.booted_systemd import Booted, booted_systemd

ROOT = Path(__file__).parents[3]
CONFORMANCE = "tests/agent/runners/test_conformance.py"

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0, reason="systemd is booted by root"),
    pytest.mark.skipif(
        not Path("/lib/systemd/systemd").exists() or shutil.which("dbus-daemon") is None,
        reason="systemd or dbus is not installed",
    ),
]


@pytest.fixture(scope="module")
def systemd() -> Iterator[Booted]:
    with booted_systemd() as booted:
        yield booted


def test_it_passes_what_every_runner_passes(systemd: Booted) -> None:
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "HOME": "/root",
        "CARREL_CONFORMANCE": "systemd",
        **{name: os.environ[name] for name in ("CI",) if name in os.environ},
    }
    done = systemd.run(
        "/bin/sh", "-c", f"cd {ROOT} && exec {sys.executable} -m pytest -q {CONFORMANCE}",
        env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert int(done.stdout.split(" passed")[0].split()[-1]) >= 12
    assert "skipped" not in done.stdout
    patterns = ("carrel-*.service", "carrel-*-*.slice")
    left = systemd.run("/usr/bin/systemctl", "list-units", "--all", "--plain", *patterns)
    assert "0 loaded units" in left.stdout

"""The parts of forgetting that need a Python other than the tests' own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from carrel_agent.zygote import resets

RESET = """
import json, locale, logging, os, site, sys, tempfile, time
import multiprocessing, random
site.PREFIXES.append(sys.base_prefix)  # as in an environment that shows the system's packages
before = multiprocessing.current_process().authkey
home = sys.argv[1]
tempfile.gettempdir()
logging.basicConfig()
from carrel_agent.zygote import resets
resets.forget_the_zygote(
    {"HOME": home, "USER": "alice", "TMPDIR": home, "TZ": "Pacific/Kiritimati"}, home
)
import getpass
print(json.dumps({
    "environment": dict(os.environ), "tmp": tempfile.gettempdir(), "zone": time.tzname[0],
    "path": sys.path, "user_base": site.getuserbase(), "user_site": site.getusersitepackages(),
    "handlers": len(logging.getLogger().handlers), "who": getpass.getuser(),
    "home": os.path.expanduser("~"),
    "same_key": bytes(before) == bytes(multiprocessing.current_process().authkey),
}))
"""


@pytest.fixture
def said(tmp_path: Path) -> dict[str, Any]:
    """What a process says of itself once it has forgotten."""
    packages = resets.user_site_directory({}, str(tmp_path))
    packages.mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-I", "-c", RESET, str(tmp_path)],
        env={"PATH": "/usr/bin", "LANG": "C.UTF-8", "HOME": "/root", "CARREL_CANARY": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_a_reset_process_believes_in_the_user(said: dict[str, Any], tmp_path: Path) -> None:
    assert set(said["environment"]) == {"HOME", "USER", "TMPDIR", "TZ"}
    assert said["home"] == said["tmp"] == str(tmp_path)
    assert said["who"] == "alice"
    assert said["zone"] == "+14"
    assert said["handlers"] == 0
    # Drawn at random when the module was imported, so it would be every user's.
    assert said["same_key"] is False


def test_the_users_packages_stand_before_the_hosts(said: dict[str, Any], tmp_path: Path) -> None:
    place = str(resets.user_site_directory({}, str(tmp_path)))
    assert said["user_site"] == place
    assert said["user_base"] == str(tmp_path / ".local")
    packages = [entry for entry in said["path"] if "-packages" in entry]
    assert packages[0] == place
    assert len(packages) > 1
    assert said["path"].index(place) > 0


def test_an_environment_without_system_packages_has_no_user_site() -> None:
    venv = Path(sys.prefix, "pyvenv.cfg")
    if not venv.exists() or "= true" in venv.read_text(encoding="utf-8"):
        pytest.skip("needs a virtual environment of the usual kind")
    assert resets.user_site_applies({"HOME": "/home/alice"}) is False


def test_a_user_can_leave_their_site_out() -> None:
    assert resets.user_site_applies({"PYTHONNOUSERSITE": "1"}) is False


def test_the_user_site_lies_where_home_says() -> None:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    expected = Path(f"/data/alice/.local/lib/python{version}/site-packages")
    assert resets.user_site_directory({"HOME": "/data/alice"}, "/home/alice") == expected
    assert os.fspath(resets.user_site_directory({}, "/home/alice")).startswith("/home/alice/")

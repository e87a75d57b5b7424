"""A home that is full, or cannot be written, keeps nobody from working."""

import contextlib
import json
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.agent_host import AgentHost, running_host
from support.launching import UnixConnection

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="file systems are mounted by root"),
]


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cs", dir="/tmp") as path:
        Path(path).chmod(0o755)
        yield Path(path) / "scratch"


@pytest.fixture(scope="module")
def host(account: pwd.struct_passwd, place: Path) -> Iterator[AgentHost]:
    with running_host(account, scratch_dir=str(place)) as running:
        yield running


@pytest.fixture
def full(account: pwd.struct_passwd) -> Iterator[None]:
    """Its home is a file system with no room left."""
    home = Path(account.pw_dir)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=4", "tmpfs", home], check=True
    )
    try:
        os.chown(home, account.pw_uid, account.pw_gid)
        with contextlib.suppress(OSError):
            (home / "big").write_bytes(b"x" * 100_000)
        with contextlib.suppress(OSError):
            for name in range(4):  # here an empty file takes no block
                (home / f"{name}").touch()
        yield
    finally:
        subprocess.run(["umount", "--lazy", home], check=True)


@pytest.fixture
def closed(account: pwd.struct_passwd) -> Iterator[None]:
    """Its home is root's by some mistake."""
    home = Path(account.pw_dir)
    shutil.rmtree(home / ".local", ignore_errors=True)
    os.chown(home, 0, 0)
    home.chmod(0o755)
    try:
        yield
    finally:
        os.chown(home, account.pw_uid, account.pw_gid)


@pytest.fixture
def missing(account: pwd.struct_passwd) -> Iterator[None]:
    """Its home is not there, as when what holds it was not mounted."""
    home = Path(account.pw_dir)
    away = home.rename(home.with_name(f"{home.name}.away"))
    try:
        yield
    finally:
        away.rename(home)


def ask(report: dict[str, Any], secret: str, path: str) -> tuple[int, dict[str, str], bytes]:
    connection = UnixConnection(report["target"].removeprefix("unix:"))
    visitor = json.dumps({"name": "somebody"})
    headers = {"X-Carrel-Secret": secret, "X-Carrel-User": visitor, "X-Carrel-Auth": "token"}
    connection.request("GET", f"/user/somebody/{path}", headers=headers)
    with connection.getresponse() as reply:
        found = reply.status, dict(reply.headers), reply.read()
    connection.close()
    return found


@pytest.mark.parametrize("trouble", ["full", "closed", "missing"])
def test_a_start_that_failed_for_its_home_is_made_in_a_scratch_home_when_its_user_says_so(
    host: AgentHost, place: Path, request: pytest.FixtureRequest, trouble: str
) -> None:
    request.getfixturevalue(trouble)
    path = f"{host.account.pw_dir}/more"
    program = f"open({path!r}, 'wb').write(b'x' * 100_000)"
    spec = host.spec(command=["/usr/bin/python3", "-c", program])
    host.put(spec)
    exit_ = host.wait_state(spec["server_id"], "failed")["exit"]
    assert exit_["scratch_home"] is True, exit_
    assert "scratch home" in exit_["advice"]
    if trouble == "missing":
        assert f"home directory {host.account.pw_dir} does not exist" in exit_["summary"]
        assert "An administrator can make it, or mount what holds it." in exit_["advice"]
    assert not (place / spec["server_id"]).exists(), "only when asked for"

    again = {**spec, "generation": 2, "scratch_home": True, "start_timeout_seconds": 90}
    del again["command"]  # JupyterLab
    assert host.put(again).status_code == 202
    report = host.wait_state(spec["server_id"], "ready", seconds=90)
    home = place / spec["server_id"]
    assert home.stat().st_uid == host.account.pw_uid
    assert Path(f"/proc/{report['pid']}/cwd").readlink() == home
    status, headers, _ = ask(report, spec["secret"], "")
    assert (status, headers["Location"]) == (302, "/user/somebody/lab/tree/SCRATCH-HOME.md?")
    _, _, listing = ask(report, spec["secret"], "api/contents")
    names = {entry["name"] for entry in json.loads(listing)["content"]}
    assert {"SCRATCH-HOME.md", "real-home"} <= names
    assert report["account"]["home"] == host.account.pw_dir, "its own home is where it was"

    host.stop_server(spec["server_id"], generation=2)
    host.wait_state(spec["server_id"], "stopped")
    assert (home / "SCRATCH-HOME.md").exists(), "kept for some days"


def test_jupyterlab_itself_starts_even_in_a_full_home(host: AgentHost, full: None) -> None:
    report = host.started(start_timeout_seconds=90)
    assert not report.get("exit")
    host.stop_server(report["server_id"])
    host.wait_state(report["server_id"], "stopped")

"""JupyterLab of an environment that is not the agent's: executed, and as well guarded."""

import os
import pwd
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from support.agent_host import AgentHost
from support.launching import UnixConnection


@pytest.fixture
def environment(host: AgentHost) -> Path:
    """An environment of its own, with the packages of this one."""
    place = host.base / "course"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(place), "platbase": str(place)}))
    (site / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return place


def asked(path: str, where: str, headers: dict[str, str]) -> tuple[int, str]:
    connection = UnixConnection(path)
    connection.request("GET", f"/user/somebody/{where}", headers=headers)
    with connection.getresponse() as reply:
        found = reply.status, reply.read().decode()
    connection.close()
    return found


def test_a_lab_of_another_environment_runs_there_and_knows_its_visitors(
    host: AgentHost, environment: Path, account: pwd.struct_passwd
) -> None:
    python = str(environment / "bin/python")
    spec = host.spec(command=[python, "-m", "jupyterlab"], start_timeout_seconds=120)
    assert host.put(spec).status_code == 202
    report = host.wait_state(spec["server_id"], "ready", seconds=120)
    try:
        assert (report["runner"], report["peer_uid"]) == ("exec", account.pw_uid)
        words = Path(f"/proc/{report['pid']}/cmdline").read_bytes().split(b"\0")
        assert words[0] == os.fsencode(python)
        path = report["target"].removeprefix("unix:")
        visitor = {"X-Carrel-User": '{"name": "somebody"}', "X-Carrel-Auth": "token"}
        assert asked(path, "api/me", visitor)[0] == 403, "without the secret nobody gets in"
        status, me = asked(path, "api/me", {**visitor, "X-Carrel-Secret": spec["secret"]})
        assert (status, '"username": "somebody"' in me) == (200, True), me
    finally:
        host.stop_server(spec["server_id"])
        host.wait_state(spec["server_id"], "stopped")

"""What an executed server is given."""

import json
import pwd
import sys

import pytest

from carrel_agent.process.exec_environment import CONFIG_DIRECTORY, exec_environment
from carrel_agent.process.launch_spec import LaunchSpec
from support.launching import build_spec


@pytest.fixture
def spec() -> LaunchSpec:
    account = ("alice", "x", 4321, 4321, "", "/home/alice", "/bin/bash")
    made = pwd.struct_passwd(account)
    return build_spec(made, groups=(4321,), environment={"HOME": "/home/alice"})


@pytest.fixture(autouse=True)
def _no_group_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getgrouplist", lambda name, gid: [gid])


def test_the_secret_is_in_no_argument(spec: LaunchSpec) -> None:
    argv, environment = exec_environment(spec, 3)
    assert spec.secret not in " ".join(argv)
    assert json.loads(environment["CARREL_SERVER"])["secret"] == spec.secret


def test_without_a_command_this_python_runs_its_own_jupyterlab(spec: LaunchSpec) -> None:
    argv, _ = exec_environment(spec, 3)
    assert argv == [sys.executable, "-P", "-m", "jupyterlab"]


def test_a_command_is_taken_as_it_is(spec: LaunchSpec) -> None:
    from dataclasses import replace

    argv, _ = exec_environment(replace(spec, argv=("/opt/r/bin/jupyter", "lab")), 3)
    assert argv == ["/opt/r/bin/jupyter", "lab"]


def test_our_configuration_stands_before_the_users_own(spec: LaunchSpec) -> None:
    from dataclasses import replace

    mine = {"HOME": "/home/alice", "JUPYTER_CONFIG_PATH": "/a:/b", "JUPYTER_NO_CONFIG": "1"}
    _, environment = exec_environment(replace(spec, environment=mine), 3)
    assert environment["JUPYTER_CONFIG_PATH"] == f"{CONFIG_DIRECTORY}:/a:/b"
    assert "JUPYTER_NO_CONFIG" not in environment


def test_nothing_of_ours_is_in_the_environment(
    spec: LaunchSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARREL_CANARY", "the agent's")
    _, environment = exec_environment(spec, 3)
    assert set(environment) == {"HOME", "JUPYTER_CONFIG_PATH", "CARREL_SERVER"}

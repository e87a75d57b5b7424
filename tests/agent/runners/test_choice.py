"""Which runners a host has."""

import sys
from pathlib import Path
from typing import Any

import pytest

from carrel_agent.cgroups.host import ControlGroups
from carrel_agent.errors import SetupError
from carrel_agent.keeper.client import KeeperClient
from carrel_agent.runners.base import RunnerContext
from carrel_agent.runners.choice import open_runners
from carrel_agent.runners.processes import ProcessRunner
from carrel_agent.settings import AgentSettings
from carrel_shared.clock import SystemClock

MODULE = "a_runner_of_ones_own"
SOURCE = """
from carrel_agent.runners.processes import ProcessRunner

class Own(ProcessRunner):
    def __init__(self, context):
        super().__init__(context)
        self.context = context
"""


def settings(**changes: Any) -> AgentSettings:
    return AgentSettings.model_validate(
        {
            "listen": "unix:/tmp/a.sock",
            "key": "k" * 43,
            "hub_url": "unix:/tmp/h.sock",
            "hub_key": "h" * 43,
            "state_dir": "/tmp/state",
            "run_dir": "/tmp/run",
            **changes,
        }
    )


def opened(**changes: Any) -> dict[str, Any]:
    keeper: KeeperClient = None  # type: ignore[assignment]
    return dict(open_runners(settings(**changes), keeper, SystemClock(), ControlGroups([], {})))


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"{MODULE}.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, MODULE, raising=False)


def test_without_a_word_there_are_fork_and_exec() -> None:
    assert list(opened()) == ["fork", "exec"]


@pytest.mark.usefixtures("own")
def test_a_runner_of_ones_own_is_named_in_the_settings() -> None:
    made = opened(
        runners={"mine": f"{MODULE}:Own"},
        runner_options={"mine": {"queue": "long"}},
        default_runners=["mine"],
    )
    assert list(made) == ["fork", "exec", "mine"]
    mine = made["mine"]
    assert isinstance(mine, ProcessRunner)
    assert mine.name == "mine"
    context: RunnerContext = mine.context  # type: ignore[attr-defined]
    assert context.options == {"queue": "long"}


@pytest.mark.usefixtures("own")
def test_an_installed_package_brings_its_runner(tmp_path: Path) -> None:
    place = tmp_path / "own-1.0.dist-info"
    place.mkdir()
    (place / "METADATA").write_text("Metadata-Version: 2.1\nName: own\nVersion: 1.0\n")
    (place / "entry_points.txt").write_text(f"[carrel_agent.runners]\nmine = {MODULE}:Own\n")
    assert list(opened()) == ["fork", "exec", "mine"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"default_runners": ["docker"]}, "there is no runner 'docker'"),
        ({"runners": {"mine": "nowhere:Own"}}, "cannot be loaded: No module named 'nowhere'"),
        ({"runners": {"mine": "json:Own"}}, "cannot be loaded"),
        ({"runner_options": {"sudo": {"sude": "x"}}}, "unknown option 'sude'"),
        ({"runner_options": {"sudo": {"sudo": "/no/sudo"}}}, "needs /no/sudo"),
    ],
)
def test_what_cannot_be_had_is_said(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SetupError, match=words):
        opened(**changes)


def test_sudo_wants_a_program_that_its_caller_cannot_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("os.access", lambda path, _mode: str(path).endswith("sudo_helper.py"))
    with pytest.raises(SetupError, match=r"installed by root: this account can change .*helper"):
        opened(default_runners=["sudo"])

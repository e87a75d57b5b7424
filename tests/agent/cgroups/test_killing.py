"""Killing what is in a group, one by one where the kernel does not do it at once."""

import subprocess
from pathlib import Path

import pytest

from carrel_agent.cgroups.group import HELD_AT_ONCE, Group


def test_many_processes_are_few_looks_at_the_group(
    tmp_path: Path, process: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look at it for each process takes minutes where somebody has ten thousand."""
    (tmp_path / "pids.max").touch()
    seen = [process.pid, *range(1 << 22, (1 << 22) + 3 * HELD_AT_ONCE)]  # the others have ended
    looks = []

    def pids(_group: Group) -> list[int]:
        looks.append(1)
        return seen

    monkeypatch.setattr(Group, "pids", pids)
    Group(None, {"pids": (tmp_path, 1)})._kill_each(seen)
    assert process.wait(60) == -9
    assert len(looks) == 4


def test_what_is_in_the_group_no_more_is_left_alone(
    tmp_path: Path, process: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pid may be somebody else's by now."""
    monkeypatch.setattr(Group, "pids", lambda _group: [])
    Group(tmp_path, {})._kill_each([process.pid])
    assert process.poll() is None

"""Sockets and logs, where they lie and who may have them."""

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from carrel_agent.supervise.logs import ServerLogs, clean
from carrel_agent.supervise.sockets import SocketDirectories

ID = "0123456789ab"


@pytest.fixture
def run_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ca", dir="/tmp") as path:
        yield Path(path) / "run"


@pytest.mark.skipif(os.geteuid() != 0, reason="a group is given as root")
def test_a_group_can_connect_and_nobody_else_can_touch(run_dir: Path) -> None:
    sockets = SocketDirectories(run_dir, group=60)
    with sockets.bind(ID):
        path = sockets.path(ID)
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o2750
        assert (path.parent.stat().st_uid, path.parent.stat().st_gid) == (0, 60)
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert path.stat().st_gid == 60
    assert stat.S_IMODE((run_dir / "s").stat().st_mode) == 0o711


def test_without_a_group_all_is_the_agents_own(run_dir: Path) -> None:
    sockets = SocketDirectories(run_dir, group=None)
    with sockets.bind(ID):
        path = sockets.path(ID)
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sockets.ids() == [ID]


def test_what_a_crash_left_is_no_obstacle(run_dir: Path) -> None:
    sockets = SocketDirectories(run_dir, group=None)
    sockets.bind(ID).close()
    sockets.bind(ID).close()
    sockets.remove(ID)
    sockets.remove(ID)
    assert sockets.ids() == []


def test_a_directory_others_can_write_to_is_refused(run_dir: Path) -> None:
    (run_dir / "s").mkdir(parents=True)
    (run_dir / "s").chmod(0o777)
    with pytest.raises(PermissionError, match="nobody else can"):
        SocketDirectories(run_dir, group=None)


def test_what_it_lies_in_must_be_the_agents_too(run_dir: Path) -> None:
    """Whoever has that directory can put another in the place of the sockets' one."""
    SocketDirectories(run_dir, group=None)
    run_dir.chmod(0o770)
    with pytest.raises(PermissionError, match="nobody else can"):
        SocketDirectories(run_dir, group=None)


def test_a_tail_reaches_into_the_older_file(tmp_path: Path) -> None:
    logs = ServerLogs(tmp_path)
    assert logs.tail(ID, 5) == []
    (tmp_path / f"{ID}.log.1").write_text("one\ntwo\n")
    (tmp_path / f"{ID}.log").write_text("three\nfour")
    assert logs.tail(ID, 3) == ["two", "three", "four"]
    logs.remove(ID)
    assert list(tmp_path.iterdir()) == []


def test_what_a_server_prints_cannot_play_tricks() -> None:
    assert clean("\x1b[31mred\x1b[0m \x1b]0;title\x07x\x08\x00\ty\u202e") == "red x    y"
    assert len(clean("x" * 10_000)) == 500


def test_bytes_that_are_no_text_are_shown_as_such(tmp_path: Path) -> None:
    (tmp_path / f"{ID}.log").write_bytes(b"\xff\xfe ok\n")
    assert ServerLogs(tmp_path).tail(ID, 1)[0].endswith(" ok")

"""Sockets are told apart by their numbers, not by what they say."""

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from carrel_agent.supervise import unix_sockets
from carrel_agent.supervise.search import Trace, find_server
from carrel_agent.supervise.sockets import NUMBER_NAME, SocketDirectories, bound_numbers
from carrel_agent.supervise.unix_sockets import is_open, number_of

ID = "0123456789ab"
FORGED = "x\n0: 2 0 0 1 1 {number} "


@pytest.fixture
def run_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ca", dir="/tmp") as path:
        yield Path(path) / "run"


@pytest.fixture(params=[True, False], ids=["asked", "read"])
def kernel_answers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.param:
        monkeypatch.setattr(unix_sockets, "_is_known", lambda _number: False)


@pytest.mark.usefixtures("kernel_answers")
def test_a_socket_is_open_until_nobody_has_it() -> None:
    ours, theirs = socket.socketpair()
    kept = socket.socket(socket.AF_UNIX)
    number = number_of(kept.fileno())
    assert is_open(number)
    with ours, theirs:
        socket.send_fds(ours, [b"x"], [kept.fileno()])
        kept.close()
        assert is_open(number), "it is on its way"
    assert not is_open(number)


def test_a_name_that_poses_as_a_servers_socket_is_no_trace_of_it(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everybody may bind what looks like another line of the kernel's table."""
    sockets = SocketDirectories(run_dir, group=None)
    path = sockets.path(ID)
    attacker = run_dir.parent / "attacker"
    attacker.mkdir()
    monkeypatch.chdir(attacker)
    with socket.socket(socket.AF_UNIX) as decoy, socket.socket(socket.AF_UNIX) as forged:
        name = FORGED.format(number=number_of(decoy.fileno())) + str(path)
        Path(name).parent.mkdir(parents=True)
        forged.bind(name)
        assert unix_sockets.numbers_of(path) == {number_of(decoy.fileno())}, "it takes some in"
        assert bound_numbers(path) == set()
        sockets.bind(ID).close()
        found = find_server(path, since_ticks=0, agent_pid=os.getpid())
        assert found is Trace.NOTHING


def test_what_an_earlier_agent_bound_is_found_by_its_name(run_dir: Path) -> None:
    sockets = SocketDirectories(run_dir, group=None)
    with sockets.bind(ID) as bound:
        path = sockets.path(ID)
        numbers = bound_numbers(path)
        assert numbers == {number_of(bound.fileno())}
        path.with_name(NUMBER_NAME).unlink()
        assert bound_numbers(path) == numbers

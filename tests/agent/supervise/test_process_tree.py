"""Whose process is whose."""

import asyncio
import os
import resource
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

from carrel_agent.supervise import process_tree
from carrel_agent.supervise.process_tree import (
    SERVER_ID_VARIABLE,
    Process,
    Tree,
    kill_tree,
    members,
    read_processes,
    signal_process,
)
from carrel_shared.identity import identify

SERVER = Process(pid=100, parent=1, session=100, start_ticks=50, uid=7)
TREE = Tree("0123456789ab", pid=100, start_ticks=50, uid=7, session=True)


def pids(tree: Tree, *processes: Process) -> set[int]:
    return {p.pid for p in members(tree, processes)}


def test_session_descendants_and_marked_processes_are_the_servers() -> None:
    kernel = Process(pid=101, parent=100, session=101, start_ticks=60, uid=7)
    grandchild = Process(pid=102, parent=101, session=102, start_ticks=61, uid=7)
    job = Process(pid=103, parent=1, session=100, start_ticks=62, uid=7)
    marked = Process(pid=104, parent=1, session=104, start_ticks=63, uid=7, marked=True)
    child_of_marked = Process(pid=105, parent=104, session=104, start_ticks=64, uid=7)
    assert pids(TREE, SERVER, kernel, grandchild, job, marked, child_of_marked) == set(
        range(100, 106)
    )


def test_nothing_of_others_is() -> None:
    stranger = Process(pid=200, parent=1, session=200, start_ticks=60, uid=7)
    older = Process(pid=201, parent=100, session=100, start_ticks=49, uid=7)
    other_account = Process(pid=202, parent=100, session=100, start_ticks=60, uid=8, marked=True)
    spared = Process(pid=203, parent=100, session=100, start_ticks=60, uid=7, marked=True)
    tree = replace(TREE, spared=frozenset({203}))
    assert pids(tree, stranger, older, other_account, spared) == set()


def test_a_session_counts_only_if_the_end_of_its_leader_was_seen() -> None:
    reused = Process(pid=100, parent=1, session=100, start_ticks=999, uid=7)
    member = Process(pid=300, parent=1, session=100, start_ticks=1000, uid=7)
    assert pids(replace(TREE, session=False), reused, member) == set()


def test_orphans_are_taken_only_while_the_account_has_no_other_server() -> None:
    orphan = Process(pid=300, parent=42, session=300, start_ticks=60, uid=7)
    assert pids(TREE, SERVER, orphan) == {100}
    assert pids(replace(TREE, keeper=42), SERVER, orphan) == {100, 300}


def test_no_more_of_an_environment_is_read_than_one_may_have(tmp_path: Path) -> None:
    """What is shown as that may be terabytes of nothing: PR_SET_MM_MAP (prctl(2)) says where."""
    mark = b"CARREL_SERVER_ID=0123456789ab"
    (tmp_path / "status").write_text("Name:\tx\nUid:\t7\t7\t7\t7\n")
    (tmp_path / "stat").write_text(f"100 (x) S 1 {' '.join(map(str, range(4, 30)))}")
    entry = tmp_path.rename(tmp_path.with_name("100"))
    with (entry / "environ").open("wb") as environ:
        environ.write(mark + b"\0")
        environ.truncate(1 << 40)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = process_tree._read(entry, mark, 7)
    assert found is not None
    assert found.marked
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 64 * 1024


def test_what_is_killed_is_what_was_meant() -> None:
    with (
        subprocess.Popen(
            ["sleep", "100"], env={SERVER_ID_VARIABLE: "0123456789ab"}, start_new_session=True
        ) as ours,
        subprocess.Popen(
            ["sleep", "100"], env={SERVER_ID_VARIABLE: "ba9876543210"}, start_new_session=True
        ) as theirs,
    ):
        tree = Tree("0123456789ab", pid=1, start_ticks=0, uid=os.getuid())
        rows = read_processes("0123456789ab", os.getuid())
        assert {p.pid for p in rows if p.marked} == {ours.pid}
        assert asyncio.run(kill_tree(lambda: tree)) == 1
        assert ours.wait() == -signal.SIGKILL
        assert theirs.poll() is None
        theirs.kill()


def test_a_signal_needs_the_right_start() -> None:
    with subprocess.Popen(["sleep", "100"]) as process:
        identity = identify(process.pid)
        assert identity is not None
        assert not signal_process(process.pid, identity.start_ticks + 1, signal.SIGKILL)
        assert process.poll() is None
        assert signal_process(process.pid, identity.start_ticks, signal.SIGKILL)
    assert not signal_process(process.pid, identity.start_ticks, signal.SIGKILL)

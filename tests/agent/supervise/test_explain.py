"""What owners are told when a server has ended, and what they can do about it."""

from datetime import timedelta
from typing import Any

import pytest
from agent.supervise.test_states import HANDLE, NOW, STOP, record

from carrel_agent.supervise.clues import find_clue
from carrel_agent.supervise.evidence import state_of_disk
from carrel_agent.supervise.explain import SCRATCH, Ending, Evidence, explain
from carrel_agent.supervise.launching import shown_command
from carrel_shared.wire.limits import LimitEvent

READY = {"handle": HANDLE, "ready_at": NOW}
KILLED = LimitEvent(kind="memory", count=1, limit=2 << 30, at=NOW)
HOSTS = KILLED.model_copy(update={"limit": None})
TAIL = ["starting", "no more disk", "  "]


@pytest.mark.parametrize(
    ("fields", "ending", "cause", "words"),
    [
        (READY, Ending(code=0), "exited", "shut it down from inside"),
        ({"handle": HANDLE}, Ending(code=0), "exited", "ended at once"),
        (READY, Ending(code=2), "exited", "status 2. Its last words: no more disk"),
        (READY, Ending(signal=9), "signalled", "SIGKILL). This is often the system running out"),
        (READY, Ending(signal=9, out_of_memory=KILLED), "memory_limit", "limit of 2.0 GiB"),
        (READY, Ending(signal=9, out_of_memory=HOSTS), "memory_limit", "Its host ran out of"),
        (READY, Ending(code=1, out_of_memory=KILLED), "exited", "status 1"),
        (READY, Ending(signal=64), "signalled", "signal 64"),
        (READY, Ending(signal=99), "signalled", "signal 99 (unknown)"),
        (READY, Ending(), "unknown", "not known"),
        (READY, Ending(code=77), "exited", "status 77"),
        ({"handle": HANDLE}, Ending(code=73), "start_failed", "no more disk"),
        ({}, Ending(failure="No such command."), "start_failed", "No such command."),
        ({"never_ready": True}, Ending(signal=15), "never_ready", "within 60 seconds"),
        ({**READY, "stop": STOP}, Ending(signal=9), "stopped", "alice asked"),
        ({"stop": STOP}, Ending(failure="x"), "stopped", "alice asked"),
        ({**READY, "stop": STOP}, Ending(rebooted=True), "host_rebooted", "restarted"),
    ],
)
def test_an_end_has_a_cause_and_plain_words(
    fields: dict[str, Any], ending: Ending, cause: str, words: str
) -> None:
    told = explain(record(**fields), ending, Evidence(tail=TAIL))
    assert told.cause == cause
    assert words in told.summary
    assert told.advice or cause == "stopped" or "last words" in told.summary or ending.failure


@pytest.mark.parametrize(
    ("line", "meaning", "advice"),
    [
        (
            "OSError: [Errno 122] Disk quota exceeded: '/home/a/x'",
            "quota is used up",
            "larger quota",
        ),
        ("OSError: [Errno 28] No space left on device", "no room left", "Delete"),
        ("sqlite3.OperationalError: database or disk is full", "no room left", "Delete"),
        ("OSError: [Errno 30] Read-only file system: '/home/a'", "read-only", "administrator"),
        (
            "This server was not started: cannot execute /opt/lab: No such file or directory",
            "program /opt/lab does not exist on this host",
            "install it",
        ),
        (
            "[carrel] This server was not started: cannot execute /opt/lab: Permission denied",
            "/opt/lab cannot be executed: Permission denied",
            "profile",
        ),
        (
            "ModuleNotFoundError: No module named 'jupyterlab.x'",
            "module jupyterlab.x",
            "pip install",
        ),
        ("/usr/bin/python3: No module named jupyterlab", "module jupyterlab is missing", "pip"),
        ("ImportError: cannot import name 'x' from 'y'", "cannot import name 'x'", "update"),
        (
            "lab: error while loading shared libraries: libfoo.so.1: cannot open shared object",
            "library libfoo.so.1 is missing",
            "install",
        ),
        (
            "PermissionError: [Errno 13] Permission denied: '/home/a/.local'",
            "may not use /home/a/.local",
            "ls -ld",
        ),
        ("MemoryError", "not enough memory", "higher limit"),
        ("BlockingIOError: [Errno 11] Resource temporarily unavailable", "process", "higher one"),
        ("OSError: [Errno 98] Address already in use", "Something else listens", "wait"),
        ("/bin/sh: 1: jupyter-lab: not found", "command jupyter-lab does not exist", "install"),
        ("bash: line 1: rserver: command not found", "command rserver does not", "install"),
        ("sqlite3.OperationalError: database is locked", "is locked", "stop that one"),
    ],
)
def test_last_lines_are_understood(line: str, meaning: str, advice: str) -> None:
    clue = find_clue(["Traceback (most recent call last):", line, "bye"])
    assert clue is not None
    assert meaning in clue.meaning
    assert advice in clue.advice
    told = explain(record(**READY), Ending(code=1), Evidence(tail=[line]))
    assert told.summary.startswith("It ended by itself with exit status 1. ")
    assert told.summary.endswith(clue.meaning)
    assert told.advice == (f"{clue.advice} {SCRATCH}" if clue.of_home else clue.advice)
    assert told.scratch_home == clue.of_home


def test_what_says_nothing_is_quoted() -> None:
    assert find_clue(["Serving notebooks", "all is well"]) is None


@pytest.mark.parametrize(
    ("fields", "evidence", "words"),
    [
        ({}, Evidence(), "It never listened on the socket it was given"),
        ({"port": 8000}, Evidence(), "It never listened on port 8000"),
        ({"port": 8000}, Evidence(port_taken=True), "port 8000 was taken by another account"),
        ({}, Evidence(last_status=0), "It listened on the socket it was given and said nothing"),
        ({}, Evidence(last_status=500), "It answered with status 500"),
    ],
)
def test_why_it_never_became_ready(fields: dict[str, Any], evidence: Evidence, words: str) -> None:
    told = explain(record(never_ready=True, **fields), Ending(signal=9), evidence)
    assert words in told.summary
    assert told.advice


def test_a_full_disk_explains_more_than_what_came_of_it() -> None:
    told = explain(record(**READY), Ending(code=1), Evidence(tail=["MemoryError"], home="is full"))
    assert "The disk that holds your home is full." in told.summary
    assert "memory" not in told.summary


@pytest.mark.parametrize(
    ("path", "scratch", "offered"),
    [
        ("/home/alice", "", True),
        ("/home/alice/.local/share/jupyter", "", True),
        ("/home/alicia/.local", "", False),
        ("/opt/data", "", False),
        ("/home/alice/.local", "/var/tmp/carrel-scratch/0123456789ab", False),
    ],
)
def test_a_scratch_home_is_offered_where_the_home_is_the_trouble(
    path: str, scratch: str, offered: bool
) -> None:
    line = f"PermissionError: [Errno 13] Permission denied: '{path}'"
    of_alice = record(**READY, home="/home/alice", scratch=scratch)
    told = explain(of_alice, Ending(code=1), Evidence(tail=[line]))
    assert told.scratch_home is offered
    assert (SCRATCH in told.advice) is offered
    full = explain(of_alice, Ending(code=1), Evidence(home="is full"))
    assert full.scratch_home is not bool(scratch)


def test_none_is_offered_where_the_agent_could_make_none() -> None:
    told = explain(record(**READY), Ending(code=1), Evidence(home="is full", can_move=False))
    assert told.scratch_home is False
    assert "scratch" not in told.advice


async def test_disks_are_asked() -> None:
    assert await state_of_disk("/proc") == ""
    assert await state_of_disk("/nowhere") == ""


def test_an_old_kill_for_memory_is_not_the_cause() -> None:
    from carrel_agent.supervise.confinement import killed_for_memory

    assert killed_for_memory([KILLED], NOW + timedelta(seconds=5)) == KILLED
    assert killed_for_memory([KILLED], NOW + timedelta(seconds=60)) is None


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        (["/bin/lab", "--port", "80"], "/bin/lab --port 80"),
        (["lab", "--ServerApp.token=abc", "x y"], "lab --ServerApp.token=... 'x y'"),
        (["lab", "--password", "abc", "--x"], "lab --password ... --x"),
        (["lab", "API_KEY=abc"], "lab API_KEY=..."),
    ],
)
def test_a_command_is_shown_without_secrets(argv: list[str], shown: str) -> None:
    assert shown_command(argv) == shown

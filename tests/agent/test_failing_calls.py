"""Calls of the kernel that fail at a start: nothing runs, it is told, and nothing is left.

strace is attached to the keeper and the fork server, and follows what they fork.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from carrel_agent.process.drop import ExitCode
from support.agent_host import AgentHost, child_named, wait_for

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="processes of root's are traced"),
    pytest.mark.skipif(shutil.which("strace") is None, reason="needs the package strace"),
]

STEPS = {
    "setsid": ExitCode.SESSION,
    "prlimit64": ExitCode.LIMITS,
    "setgroups": ExitCode.ACCOUNT,
    "setresgid": ExitCode.ACCOUNT,
    "setresuid": ExitCode.ACCOUNT,
}
"""What a process that becomes its user's asks of the kernel, and how it ends if that fails."""


@pytest.fixture(scope="module", params=["fork", "exec"])
def warm(host: AgentHost, request: pytest.FixtureRequest) -> Iterator[tuple[AgentHost, str]]:
    """A host that has run a server by this runner before, so that all helpers are there."""
    name: str = request.param
    _start_and_stop(host, name)
    yield host, name
    _start_and_stop(host, name)  # and it can again


def _start_and_stop(host: AgentHost, runner: str) -> None:
    mode = () if runner == "fork" else ("good",)
    server = host.started(*mode, runner=runner, start_timeout_seconds=90)["server_id"]
    host.stop_server(server)
    host.wait_state(server, "stopped")


@contextmanager
def failing(host: AgentHost, calls: str, error: str, *, in_agent: bool = False) -> Iterator[None]:
    """Have calls fail in the agent; or in all that keeper and fork server start, and in them."""
    assert host.keeper is not None
    pids = [host.keeper.pid, child_named(host.keeper.pid, "carrel-zygote")]
    pids = [host.agent_pid] if in_agent else pids
    traced = [word for pid in pids if pid for word in ("-p", str(pid))]
    with subprocess.Popen(
        ["strace", "-f", "-o", "/dev/null", "-e", f"inject={calls}:error={error}", *traced],
        stderr=subprocess.PIPE,
        text=True,
    ) as tracer:
        assert tracer.stderr is not None
        for _ in range(len(traced) // 2):
            assert "attached" in tracer.stderr.readline()
        try:
            yield
        finally:
            tracer.terminate()
            tracer.stderr.read()


def left_of(host: AgentHost, server_id: str) -> list[Path]:
    """Return what is left of a start: sockets, pipes of its log, control groups."""
    found = [host.run / "s" / server_id, *(host.state / "logs").glob(f"{server_id}.fifo")]
    for record in host.records():
        if record.server_id == server_id and record.group is not None:
            found += [path for path, _ in record.group.controllers.values()]
            found += [record.group.unified] if record.group.unified else []
    return [path for path in found if path.exists()]


@pytest.mark.parametrize("call", STEPS)
def test_a_step_that_fails_is_told_and_leaves_nothing(
    warm: tuple[AgentHost, str], call: str
) -> None:
    """AGT-04, whole: by both runners, from the request to the report."""
    host, runner = warm
    spec = host.spec(*(() if runner == "fork" else ("good",)), runner=runner)
    with failing(host, call, "EPERM"):
        assert host.put(spec).status_code == 202
        exit_ = host.wait_state(spec["server_id"], "failed")["exit"]
    assert (exit_["cause"], exit_["code"]) == ("start_failed", STEPS[call])
    assert not [line for line in exit_["log_tail"] if "serving" in line]
    wait_for("a clean slate", lambda: not left_of(host, spec["server_id"]))


@pytest.mark.parametrize("error", ["EAGAIN", "ENOMEM"])
def test_a_process_that_cannot_be_made_is_told(warm: tuple[AgentHost, str], error: str) -> None:
    """FLT-K2: no process is to be had."""
    host, runner = warm
    spec = host.spec(*(() if runner == "fork" else ("good",)), runner=runner)
    with failing(host, "clone,clone3,fork,vfork", error):
        assert host.put(spec).status_code == 202
        exit_ = host.wait_state(spec["server_id"], "failed")["exit"]
    assert exit_["cause"] == "start_failed"
    assert exit_["advice"], exit_
    wait_for("a clean slate", lambda: not left_of(host, spec["server_id"]))


def test_a_home_that_cannot_be_entered_is_said_and_survived(warm: tuple[AgentHost, str]) -> None:
    host, runner = warm
    with failing(host, "chdir", "EACCES:when=1"):
        report = host.started(
            *(() if runner == "fork" else ("good",)), runner=runner, start_timeout_seconds=90
        )
    host.wait_line(report["server_id"], "starting in / instead")
    host.stop_server(report["server_id"])
    host.wait_state(report["server_id"], "stopped")


@pytest.mark.parametrize(
    ("calls", "error", "words"),
    [
        ("memfd_create", "EMFILE", "Too many open files"),
        ("bind", "ENOSPC", "No space left on device"),
    ],
)
def test_what_the_agent_cannot_have_is_told(
    warm: tuple[AgentHost, str], calls: str, error: str, words: str
) -> None:
    host, runner = warm
    spec = host.spec(*(() if runner == "fork" else ("good",)), runner=runner)
    with failing(host, calls, error, in_agent=True):
        assert host.put(spec).status_code == 202
        exit_ = host.wait_state(spec["server_id"], "failed")["exit"]
    assert exit_["cause"] == "start_failed"
    assert words in exit_["summary"]
    wait_for("a clean slate", lambda: not left_of(host, spec["server_id"]))


def test_a_start_that_cannot_be_written_down_is_not_made(warm: tuple[AgentHost, str]) -> None:
    """The journal comes first: what is not in it would be nobody's after a crash."""
    host, runner = warm
    spec = host.spec(*(() if runner == "fork" else ("good",)), runner=runner)
    with failing(host, "fsync,fdatasync", "EIO", in_agent=True):
        reply = host.put(spec)
    assert (reply.status_code, reply.json()["code"]) == (503, "unavailable")
    assert "nothing is started without it" in reply.json()["message"]
    assert host.client.get(f"/servers/{spec['server_id']}").status_code == 404
    assert left_of(host, spec["server_id"]) == []

"""What every runner does, and what no server can make it fail at.

A runner of one's own passes the same: `CARREL_CONFORMANCE=NAME`, and settings of the agent that
have it in `CARREL_CONFORMANCE_SETTINGS` as JSON.
"""

import json
import os
import pwd
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from carrel_agent.runners.sudo import sudoers_line
from carrel_agent.supervise.process_tree import read_processes
from support.accounts import temporary_account
from support.agent_host import AgentHost, has_ended, running_host, wait_for

NAMED = os.environ.get("CARREL_CONFORMANCE")
RUN_COMMANDS = [NAMED] if NAMED else ["exec", "sudo"]
RUNNERS = RUN_COMMANDS if NAMED else ["fork", *RUN_COMMANDS]
LIMITED = [name for name in RUN_COMMANDS if name != "sudo"]
"""Those that can limit memory."""

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="servers run as an account of the tests' own"),
]


@pytest.fixture(scope="module")
def sudoer() -> Iterator[pwd.struct_passwd]:
    """An account whose agent may start servers by sudo."""
    with temporary_account("sudo") as made:
        yield pwd.getpwnam(made.name)


@pytest.fixture(scope="module", params=RUNNERS)
def runner(
    request: pytest.FixtureRequest, account: pwd.struct_passwd
) -> Iterator[tuple[AgentHost, str]]:
    name: str = request.param
    settings = json.loads(os.environ.get("CARREL_CONFORMANCE_SETTINGS", "{}"))
    agent = None
    rules = Path(f"/etc/sudoers.d/carrel-test-{os.getpid()}")
    if name == "sudo":
        agent = request.getfixturevalue("sudoer")
        unread = rules.with_suffix(".new")  # sudo reads no name with a dot (sudoers(5))
        unread.write_text(sudoers_line(agent.pw_name, account.pw_name) + "\n")
        unread.chmod(0o440)
        subprocess.run(["visudo", "-c", "-q", "-f", str(unread)], check=True)
        unread.rename(rules)
    if name in ("sudo", "systemd"):
        settings["default_runners"] = json.dumps([name])
    try:
        with running_host(account, agent=agent, **settings) as host:
            yield host, name
    finally:
        rules.unlink(missing_ok=True)


def start(runner: tuple[AgentHost, str], *mode: str, **changes: Any) -> dict[str, Any]:
    """Start a server, JupyterLab where a runner has no other; return its report when ready."""
    host, name = runner
    if name == "fork":
        mode = ()
    return host.started(*mode, runner=name, **{"start_timeout_seconds": 60, **changes})


def ended(host: AgentHost, server_id: str, state: str = "stopped") -> dict[str, Any]:
    found = host.wait_state(server_id, state)
    assert not (host.run / "s" / server_id).exists()
    assert not list((host.state / "logs").glob("*.fifo"))
    exit_: dict[str, Any] = found["exit"]
    return exit_


def test_a_server_starts_as_its_user_prints_and_stops(runner: tuple[AgentHost, str]) -> None:
    host, name = runner
    report = start(runner, "good")
    assert report["runner"] == name
    assert report["peer_uid"] == host.account.pw_uid
    assert Path(f"/proc/{report['pid']}").stat().st_uid == host.account.pw_uid
    host.wait_line(report["server_id"], "serv")
    host.stop_server(report["server_id"])
    exit_ = ended(host, report["server_id"])
    assert (exit_["cause"], exit_["code"]) == ("stopped", 0)
    assert has_ended(report["pid"])
    spec = {**host.spec("good"), "server_id": report["server_id"], "generation": 2}
    if name != "fork":
        spec["runner"] = name
        assert host.put(spec).status_code == 202
        host.wait_state(report["server_id"], "ready")
        host.stop_server(report["server_id"], generation=2)
        ended(host, report["server_id"])


def test_a_death_is_told_at_once_with_its_signal(runner: tuple[AgentHost, str]) -> None:
    host, _ = runner
    report = start(runner, "good")
    os.kill(report["pid"], signal.SIGKILL)
    exit_ = ended(host, report["server_id"], "failed")
    assert (exit_["cause"], exit_["signal"]) == ("signalled", 9)


def test_servers_are_found_again_by_the_next_agent(runner: tuple[AgentHost, str]) -> None:
    host, _ = runner
    report = start(runner, "good")
    other = start(runner, "good")
    agent = host.agent_pid
    os.kill(agent, signal.SIGSTOP)
    os.kill(other["pid"], signal.SIGTERM)
    wait_for("its end", lambda: has_ended(other["pid"]))
    os.kill(agent, signal.SIGKILL)
    wait_for("the agent's end", lambda: has_ended(agent))
    host.wait_healthy()
    found = host.wait_state(report["server_id"], "ready")
    assert found["pid"] == report["pid"]
    missed = ended_in_any_way(host, other["server_id"])
    assert missed["exit"]["cause"] in ("signalled", "exited")
    host.stop_server(report["server_id"])
    assert ended(host, report["server_id"])["code"] == 0


def ended_in_any_way(host: AgentHost, server_id: str) -> dict[str, Any]:
    return host.wait_state(server_id, "failed", "stopped")


def test_no_secret_is_in_arguments(runner: tuple[AgentHost, str]) -> None:
    host, name = runner
    spec = host.spec(*(() if name == "fork" else ("good",)), runner=name, start_timeout_seconds=60)
    host.put(spec)
    report = host.wait_state(spec["server_id"], "ready", seconds=60)
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert spec["secret"].encode() not in entry.read_bytes()
        except OSError:
            continue
    if name == "systemd":
        units = subprocess.run(
            ["systemctl", "show", "--all", "carrel-*"], capture_output=True, text=True, check=True
        )
        assert spec["server_id"] in units.stdout
        assert spec["secret"] not in units.stdout
    host.stop_server(report["server_id"])
    ended(host, report["server_id"])


hostile = pytest.mark.parametrize("runner", RUN_COMMANDS, indirect=True)


@hostile
def test_one_that_exits_at_once(runner: tuple[AgentHost, str]) -> None:
    host, name = runner
    spec = host.spec("exit", "3", runner=name)
    host.put(spec)
    exit_ = ended(host, spec["server_id"], "failed")
    assert (exit_["cause"], exit_["code"]) == ("exited", 3)
    assert "libfoo.so" in exit_["summary"]


@hostile
def test_one_that_cannot_be_executed(runner: tuple[AgentHost, str]) -> None:
    host, name = runner
    spec = host.spec(command=["/nowhere/at-all"], runner=name)
    host.put(spec)
    exit_ = ended(host, spec["server_id"], "failed")
    assert exit_["cause"] == "start_failed"
    assert "/nowhere/at-all does not exist" in exit_["summary"]


@hostile
def test_one_that_never_listens(runner: tuple[AgentHost, str]) -> None:
    host, name = runner
    spec = host.spec("silent", runner=name, start_timeout_seconds=1)
    host.put(spec)
    exit_ = ended(host, spec["server_id"], "failed")
    assert exit_["cause"] == "never_ready"
    assert "It never listened" in exit_["summary"]


@hostile
def test_one_that_ignores_every_signal(runner: tuple[AgentHost, str]) -> None:
    host, _ = runner
    report = start(runner, "stubborn")
    host.stop_server(report["server_id"], interrupt_seconds=0.1, terminate_seconds=0.1)
    assert ended(host, report["server_id"])["signal"] == 9
    assert has_ended(report["pid"])


@hostile
def test_one_that_leaves_daemons(runner: tuple[AgentHost, str]) -> None:
    host, name = runner
    place = host.base / "daemons"
    place.mkdir(exist_ok=True)
    place.chmod(0o777)
    files = [place / f"{name}-forgot", place / f"{name}-marked"]
    report = start(runner, "daemon", *map(str, files))
    pids = [int(wait_for("a daemon", lambda f=f: f.exists() and f.read_text())) for f in files]  # type: ignore[misc]
    host.stop_server(report["server_id"])
    ended(host, report["server_id"])
    left = [pid for pid in pids if not has_ended(pid)]
    if name == "sudo":  # without control groups one that forgot where it came from is not known
        left = [pid for pid in left if pid != pids[0]]
        os.kill(pids[0], signal.SIGKILL)
    assert left == []


@hostile
def test_one_that_floods_its_output(runner: tuple[AgentHost, str]) -> None:
    host, _ = runner
    report = start(runner, "flood")
    ring = host.state / "logs" / f"{report['server_id']}.log"
    wait_for("a full ring", Path(f"{ring}.1").exists)
    assert host.lines(report["server_id"], 2)[-1].startswith("xxx")
    host.stop_server(report["server_id"])
    ended(host, report["server_id"])
    sizes = [path.stat().st_size for path in ring.parent.glob(f"{report['server_id']}*")]
    assert max(sizes) <= 1 << 20


@pytest.mark.parametrize("runner", LIMITED, indirect=True)
def test_one_that_eats_memory(runner: tuple[AgentHost, str]) -> None:
    host, name = runner
    limits = {"memory_bytes": 64 << 20, "processes": 50, "cpu_cores": 0.5}
    spec = host.spec("eat", str(200 << 20), runner=name, limits=limits)
    host.put(spec)
    exit_ = ended(host, spec["server_id"], "failed")
    assert exit_["cause"] == "memory_limit"
    assert "64.0 MiB" in exit_["summary"]


@pytest.mark.parametrize("runner", LIMITED, indirect=True)
def test_limits_change_while_it_runs(runner: tuple[AgentHost, str]) -> None:
    host, _ = runner
    first = {"memory_bytes": 128 << 20, "processes": 50}
    server = start(runner, "eat", str(40 << 20), limits=first)["server_id"]
    change = {"generation": 1, "limits": {**first, "memory_bytes": 256 << 20}}
    reply = host.client.put(f"/servers/{server}/limits", change)
    assert reply.status_code == 200, reply.text
    assert reply.json()["unenforced"] == []
    (group,) = [r.group for r in host.records() if r.server_id == server]
    assert group is not None
    directory, version = group.controllers["memory"]
    file = directory / ("memory.limit_in_bytes" if version == 1 else "memory.max")
    assert int(file.read_text()) == 256 << 20
    change["limits"] = {**first, "memory_bytes": 41 << 20}
    assert host.client.put(f"/servers/{server}/limits", change).status_code == 409
    host.stop_server(server)
    ended(host, server)


@pytest.mark.parametrize("place", ["intent", "launched", "journalled"])
@pytest.mark.parametrize("name", LIMITED)
def test_an_agent_killed_during_a_start_leaves_one_server_or_none(
    account: pwd.struct_passwd, name: str, place: str
) -> None:
    settings = json.loads(os.environ.get("CARREL_CONFORMANCE_SETTINGS", "{}"))
    settings.setdefault("default_runners", json.dumps([name]))
    with AgentHost(account, **settings) as host:
        host.start(CARREL_FAILPOINT=f"agent.start.{place}")
        spec = host.spec("good", runner=name)
        host.ask_and_let_die("PUT", f"/servers/{spec['server_id']}", spec)
        report = host.wait_state(spec["server_id"], "ready", "failed")
        marked = {p.pid for p in read_processes(spec["server_id"], account.pw_uid) if p.marked}
        if report["state"] == "failed":
            assert place == "intent"
            assert marked == set()
            return
        assert marked == {report["pid"]}
        host.stop_server(spec["server_id"])
        assert ended(host, spec["server_id"])["code"] == 0
        assert has_ended(report["pid"])

"""Agents and keepers that die: nobody's server suffers, nothing runs twice, nothing is lost."""

import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from carrel_agent.supervise.process_tree import read_processes
from carrel_shared.identity import identify
from support.agent_host import KEEPER, AgentHost, has_ended, running_host, wait_for

START_FAILPOINTS = ["agent.start.intent", "agent.start.launched", "agent.start.journalled"]


@pytest.fixture
def fresh(account: pwd.struct_passwd) -> Iterator[AgentHost]:
    """A host of the test's own, not started."""
    with AgentHost(account) as made:
        yield made


def processes_of(host: AgentHost, server_id: str) -> set[int]:
    """Return what runs on this machine with a server's id in its environment."""
    return {p.pid for p in read_processes(server_id, host.account.pw_uid) if p.marked}


def test_a_killed_agent_takes_its_servers_up_again(host: AgentHost) -> None:
    before = host.started("good")
    host.kill_agent()
    after = host.report(before["server_id"])
    assert (after["state"], after["pid"]) == ("ready", before["pid"])
    assert after["ready_at"] == before["ready_at"]
    host.stop_server(before["server_id"])
    assert host.wait_state(before["server_id"], "stopped")["exit"]["code"] == 0


def test_an_exit_while_no_agent_was_there_is_told_later(host: AgentHost) -> None:
    report = host.started("good")
    agent = host.agent_pid
    os.kill(agent, signal.SIGSTOP)
    os.kill(report["pid"], signal.SIGKILL)
    wait_for("its end", lambda: identify(report["pid"]) is None)
    recorded = list((host.state / "exits").glob(f"*{report['pid']}-*.json"))
    host.kill_agent()
    assert len(recorded) == 1, "written down before it was reaped and anybody told"
    exit_ = host.wait_state(report["server_id"], "failed")["exit"]
    assert (exit_["cause"], exit_["signal"]) == ("signalled", 9)
    wait_for("a clean slate", lambda: not list((host.state / "exits").iterdir()))


def test_a_stop_that_was_asked_for_is_carried_on_by_the_next_agent(host: AgentHost) -> None:
    report = host.started("stubborn")
    host.stop_server(report["server_id"], interrupt_seconds=0.2, terminate_seconds=0.2)
    host.kill_agent()
    ended = host.wait_state(report["server_id"], "stopped")
    assert ended["exit"]["summary"] == "It was stopped: a test asked."
    assert has_ended(report["pid"])


@pytest.mark.parametrize("name", START_FAILPOINTS)
def test_an_agent_killed_during_a_start_leaves_one_server_or_none(
    fresh: AgentHost, name: str
) -> None:
    fresh.start(CARREL_FAILPOINT=name)
    spec = fresh.spec("good")
    fresh.ask_and_let_die("PUT", f"/servers/{spec['server_id']}", spec)
    report = fresh.wait_state(spec["server_id"], "ready", "failed")
    if report["state"] == "failed":
        assert name == "agent.start.intent"
        assert report["exit"]["cause"] == "start_failed"
        assert processes_of(fresh, spec["server_id"]) == set()
    else:
        assert processes_of(fresh, spec["server_id"]) == {report["pid"]}
        fresh.stop_server(spec["server_id"])
        assert fresh.wait_state(spec["server_id"], "stopped")["exit"]["code"] == 0


@pytest.mark.parametrize("name", ["agent.stop.signalled", "agent.exit.journalled"])
def test_an_agent_killed_during_a_stop_finishes_it_later(fresh: AgentHost, name: str) -> None:
    fresh.start(CARREL_FAILPOINT=name)
    report = fresh.started("good")
    stop = {"generation": 1, "reason": "a test asked"}
    fresh.ask_and_let_die("POST", f"/servers/{report['server_id']}/stop", stop)
    ended = fresh.wait_state(report["server_id"], "stopped")
    assert ended["exit"]["cause"] == "stopped"
    assert processes_of(fresh, report["server_id"]) == set()
    wait_for("a clean slate", lambda: not list((fresh.state / "exits").iterdir()))
    assert list((fresh.run / "s").iterdir()) == []


def test_a_killed_keeper_costs_no_server(fresh: AgentHost) -> None:
    fresh.start()
    before = fresh.started("good")
    fresh.kill_keeper()
    fresh.start()
    after = fresh.report(before["server_id"])
    assert (after["state"], after["pid"]) == ("ready", before["pid"])
    again = fresh.started("good")
    os.kill(before["pid"], signal.SIGTERM)
    exit_ = fresh.wait_state(before["server_id"], "failed")["exit"]
    assert exit_["cause"] == "unknown", "its status went to another parent"
    fresh.stop_server(again["server_id"])
    fresh.wait_state(again["server_id"], "stopped")


def test_output_goes_on_when_keeper_and_agent_are_replaced(fresh: AgentHost) -> None:
    fresh.start()
    report = fresh.started("flood")
    older = fresh.state / "logs" / f"{report['server_id']}.log.1"
    wait_for("a full ring", older.exists)
    fresh.kill_keeper()
    fresh.start()
    here = older.stat().st_ino
    wait_for("new output", lambda: older.stat().st_ino != here)
    assert fresh.report(report["server_id"])["state"] == "ready"
    fresh.stop_server(report["server_id"])
    fresh.wait_state(report["server_id"], "stopped")


def test_a_stopped_keeper_leaves_the_servers(fresh: AgentHost) -> None:
    fresh.start()
    report = fresh.started("good")
    agent = fresh.agent_pid
    assert fresh.stop() == 0
    assert has_ended(agent)
    assert identify(report["pid"]) is not None
    fresh.start()
    assert fresh.report(report["server_id"])["state"] == "ready"
    fresh.stop_server(report["server_id"])
    fresh.wait_state(report["server_id"], "stopped")


def test_after_a_reboot_servers_have_ended_and_nothing_is_signalled(fresh: AgentHost) -> None:
    fresh.start()
    report = fresh.started("good")
    fresh.stop()
    path = fresh.state / "servers" / f"{report['server_id']}.json"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    path.write_text(path.read_text().replace(boot, "0" * 36))
    fresh.start()
    ended = fresh.wait_state(report["server_id"], "failed", "stopped")
    assert ended["exit"]["cause"] == "host_rebooted"
    assert not (fresh.run / "s" / report["server_id"]).exists()
    assert identify(report["pid"]) is not None
    os.killpg(report["pid"], signal.SIGKILL)


def test_a_reused_pid_is_left_alone(fresh: AgentHost) -> None:
    fresh.start()
    report = fresh.started("good")
    fresh.stop()
    os.killpg(report["pid"], signal.SIGKILL)
    path = fresh.state / "servers" / f"{report['server_id']}.json"
    with subprocess.Popen(
        ["sleep", "100"], user=fresh.account.pw_uid, start_new_session=True
    ) as stranger:
        path.write_text(path.read_text().replace(f'"pid":{report["pid"]}', f'"pid":{stranger.pid}'))
        fresh.start()
        ended = fresh.wait_state(report["server_id"], "failed")
        assert ended["exit"]["cause"] == "unknown"
        assert stranger.poll() is None
        stranger.kill()


PID_NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="a pid namespace is made by root")
@pytest.mark.parametrize("what", ["signals", "adoption"])
def test_a_pid_that_is_made_to_be_reused_is_left_alone(
    account: pwd.struct_passwd, what: str
) -> None:
    """AGT-02: the kernel is told which pid to give next, in a namespace of its own."""
    script = Path(__file__).parents[1] / "support" / "pid_reuse.py"
    argument = "500" if what == "signals" else account.pw_name
    done = subprocess.run(
        [*PID_NAMESPACE, sys.executable, str(script), what, argument],
        capture_output=True,
        text=True,
        check=False,
    )
    told = {"signals": "decoys 500 hit 0\n", "adoption": "cause unknown decoy alive\n"}
    assert done.stdout == told[what], done.stderr


def test_a_server_whose_record_was_lost_is_replaced_not_doubled(fresh: AgentHost) -> None:
    fresh.start()
    lost = fresh.started("good")
    fresh.stop()
    path = fresh.state / "servers" / f"{lost['server_id']}.json"
    path.write_bytes(path.read_bytes()[:100])
    fresh.start()
    assert path.with_suffix(".corrupt").exists()
    assert identify(lost["pid"]) is not None, "unknown is not dead"
    spec = fresh.spec("good", server_id=lost["server_id"], generation=2)
    assert fresh.put(spec).status_code == 202
    report = fresh.wait_state(lost["server_id"], "ready")
    assert processes_of(fresh, lost["server_id"]) == {report["pid"]}
    fresh.stop_server(lost["server_id"], generation=2)
    fresh.wait_state(lost["server_id"], "stopped")


def test_wrong_settings_end_keeper_and_agent_with_a_clear_word(account: pwd.struct_passwd) -> None:
    with AgentHost(account, key="short") as host:
        with pytest.raises(AssertionError):
            host.start()
        assert host.keeper is not None
        assert host.keeper.wait(60) == 78
        host.keeper = None
        text = host.log.read_text()
        assert "agent.key" in text
        assert "32 characters" in text
        assert "Traceback" not in text


def test_an_agent_without_keeper_says_what_it_needs(account: pwd.struct_passwd) -> None:
    with AgentHost(account) as host:
        done = subprocess.run(
            [sys.executable, "-I", "-m", "carrel_agent", "serve"],
            env=host.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 78
        assert "carrel-agent keeper" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_second_keeper_on_the_same_state_says_so(host: AgentHost) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(KEEPER)],
        env=host.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "another keeper" in done.stderr


def test_many_servers_are_taken_up_at_once(account: pwd.struct_passwd) -> None:
    with running_host(account) as host:
        specs = [host.spec("good") for _ in range(12)]
        for spec in specs:
            assert host.put(spec).status_code == 202
        pids = {s["server_id"]: host.wait_state(s["server_id"], "ready")["pid"] for s in specs}
        host.kill_agent()
        found = {r["server_id"]: r for r in host.client.get("/servers").json()["servers"]}
        assert {i: r["pid"] for i, r in found.items()} == pids
        assert {r["state"] for r in found.values()} == {"ready"}
        for spec in specs:
            host.stop_server(spec["server_id"])
        for spec in specs:
            host.wait_state(spec["server_id"], "stopped")

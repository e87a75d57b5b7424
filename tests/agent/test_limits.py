"""What servers may use, on the control groups of this very machine (root)."""

import os
import pwd
from pathlib import Path

import pytest

from carrel_agent.cgroups.mounts import read_mounts
from support.agent_host import AgentHost, has_ended, running_host, wait_for

MIB = 1 << 20
CAP_SYS_RESOURCE = 24


def held_capabilities(which: str) -> str:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(which))


pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="control groups are made by root"),
]


def test_memory_beyond_the_limit_ends_a_server_and_is_told_with_the_numbers(
    host: AgentHost,
) -> None:
    spec = host.spec("eat", str(200 * MIB), limits={"memory_bytes": 64 * MIB})
    assert host.put(spec).status_code == 202
    ended = host.wait_state(spec["server_id"], "failed")
    assert ended["exit"]["cause"] == "memory_limit"
    assert ended["exit"]["signal"] == 9
    assert "its limit of 64.0 MiB of memory" in ended["exit"]["summary"]
    (event,) = ended["limit_events"]
    assert (event["kind"], event["count"], event["limit"]) == ("memory", 1, 64 * MIB)
    assert event["peak"] > 60 * MIB


def test_a_child_that_is_killed_for_memory_is_told_while_its_server_goes_on(
    host: AgentHost,
) -> None:
    report = host.started("eat", str(200 * MIB), "child", limits={"memory_bytes": 64 * MIB})
    server = report["server_id"]
    host.wait_line(server, "child ended with -9")
    met = wait_for("the report of it", lambda: host.report(server)["limit_events"])
    assert (met[0]["kind"], met[0]["count"]) == ("memory", 1)
    assert host.report(server)["state"] == "ready"
    host.stop_server(server)
    assert host.wait_state(server, "stopped")["exit"]["cause"] == "stopped"


def test_no_more_processes_than_allowed(host: AgentHost) -> None:
    report = host.started("forks", limits={"processes": 10})
    server = report["server_id"]
    host.wait_line(server, "forks 9")
    assert host.client.get(f"/servers/{server}/usage").json()["processes"] == 10
    host.stop_server(server)
    ended = host.wait_state(server, "stopped")
    assert [e["kind"] for e in ended["limit_events"]] == ["processes"]
    assert ended["limit_events"][0]["limit"] == 10


def test_processor_time_and_open_files_are_limited(host: AgentHost) -> None:
    report = host.started("good", limits={"cpu_cores": 0.5, "open_files": 100})
    groups = Path(f"/proc/{report['pid']}/cgroup").read_text()
    (path,) = [line.split(":", 2)[2] for line in groups.splitlines() if ":cpu:" in line]
    quota = Path(f"/sys/fs/cgroup/cpu/{path}/cpu.cfs_quota_us")
    assert int(quota.read_text()) == 50_000
    limits = Path(f"/proc/{report['pid']}/limits").read_text()
    assert "Max open files            100                  100" in limits
    host.stop_server(report["server_id"])
    host.wait_state(report["server_id"], "stopped")
    assert not quota.parent.exists()


def test_limits_of_a_running_server_are_raised_and_lowered(host: AgentHost) -> None:
    report = host.started("eat", str(40 * MIB), limits={"memory_bytes": 128 * MIB})
    server = report["server_id"]

    def change(**limits: float) -> tuple[int, dict[str, object]]:
        body = {"generation": 1, "limits": limits}
        reply = host.client.put(f"/servers/{server}/limits", body)
        return reply.status_code, reply.json()

    status, usage = change(memory_bytes=256 * MIB, processes=50, cpu_cores=1)
    assert status == 200, usage
    assert usage["limits"]["memory_bytes"] == 256 * MIB  # type: ignore[index]
    assert usage["unenforced"] == []
    assert 40 * MIB < usage["memory_bytes"] < 80 * MIB  # type: ignore[operator]

    status, refused = change(memory_bytes=41 * MIB)
    assert (status, refused["code"]) == (409, "limit_below_use")
    assert "are in use; the lowest limit that leaves a margin of 10%" in str(refused["message"])
    assert host.client.get(f"/servers/{server}/usage").json()["limits"]["processes"] == 50

    assert change(memory_bytes=100 * MIB)[0] == 200
    host.kill_agent()
    usage = host.client.get(f"/servers/{server}/usage").json()
    assert usage["limits"]["memory_bytes"] == 100 * MIB
    host.stop_server(server)
    host.wait_state(server, "stopped")
    assert change(memory_bytes=100 * MIB)[0] == 404


def test_open_files_of_a_running_server_change_where_that_is_allowed(host: AgentHost) -> None:
    report = host.started("good", limits={"open_files": 100})
    body = {"generation": 1, "limits": {"open_files": 64}}
    reply = host.client.put(f"/servers/{report['server_id']}/limits", body)
    now = Path(f"/proc/{report['pid']}/limits").read_text()
    if int(held_capabilities("CapEff"), 16) >> CAP_SYS_RESOURCE & 1:
        assert reply.status_code == 200
        assert "Max open files            64 " in now
    else:
        assert (reply.status_code, reply.json()["code"]) == (400, "limit_unenforceable")
        assert "Max open files            100 " in now
    host.stop_server(report["server_id"])
    host.wait_state(report["server_id"], "stopped")


def test_a_limit_of_another_generation_is_refused(host: AgentHost) -> None:
    server = host.started("good")["server_id"]
    body = {"generation": 0, "limits": {}}
    assert host.client.put(f"/servers/{server}/limits", body).status_code == 409
    host.stop_server(server)
    host.wait_state(server, "stopped")


@pytest.mark.parametrize("kind", ["forked", "executed"])
def test_the_group_is_joined_before_anything_of_the_users_runs(host: AgentHost, kind: str) -> None:
    """Every process there is belongs to the group, JupyterLab's own and what it starts."""
    spec = host.spec(runner="fork" if kind == "forked" else "exec", start_timeout_seconds=90)
    spec["limits"] = {"processes": 300, "memory_bytes": 1024 * MIB}
    host.put(spec)
    report = host.wait_state(spec["server_id"], "ready", seconds=90)
    groups = Path(f"/proc/{report['pid']}/cgroup").read_text().splitlines()
    inside = [line for line in groups if line.endswith(f"/{spec['server_id']}")]
    assert {line.split(":")[1] for line in inside} >= {"memory", "pids", "cpu"}
    host.stop_server(spec["server_id"])
    host.wait_state(spec["server_id"], "stopped")


def test_what_runs_away_is_ended_with_its_server(host: AgentHost) -> None:
    """Daemons of daemons, one that forks for ever, each deaf to signals: none is left."""
    report = host.started("swarm", "60")
    server = report["server_id"]
    (place,) = [r.group for r in host.records() if r.server_id == server]
    assert place is not None
    group = place.unified or place.controllers["pids"][0]

    def swarm() -> list[int]:
        pids = [int(pid) for pid in (group / "cgroup.procs").read_text().split()]
        return pids if len(pids) > 60 else []

    pids = wait_for("the swarm", swarm)
    host.stop_server(server, interrupt_seconds=0.1, terminate_seconds=0.1)
    host.wait_state(server, "stopped")
    assert all(map(has_ended, pids))
    assert not group.exists()


WITHOUT_PIDS = ("unshare", "--mount", "sh", "-c", 'umount "$0" && exec "$@"')


def test_a_limit_this_host_cannot_enforce_is_refused_unless_advisory(
    account: pwd.struct_passwd,
) -> None:
    hidden = next(m.point for m in read_mounts() if "pids" in m.controllers)
    with running_host(account, wrapper=[*WITHOUT_PIDS, str(hidden)]) as host:
        reply = host.put(host.spec("good", limits={"processes": 10}))
        assert (reply.status_code, reply.json()["code"]) == (400, "limit_unenforceable")
        assert "processes: its kernel offers no pids controller" in reply.json()["message"]
        limits = {"processes": 10, "memory_bytes": 64 * MIB, "advisory": True}
        server = host.started("good", limits=limits)["server_id"]
        usage = host.client.get(f"/servers/{server}/usage").json()
        assert usage["unenforced"] == ["processes"]
        assert usage["memory_bytes"] > 0
        host.stop_server(server)
        host.wait_state(server, "stopped")

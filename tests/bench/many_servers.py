"""Measure an agent with many idle servers: its processor time, its heartbeats, stops of many.

    python tests/bench/many_servers.py [--servers 500] [--seconds 30] [--stop 50] [--limited]

The servers are trivial ones (`small_server.py`), each executed, of one account; with `--limited`
each has limits, which the agent watches. The hub is a fake one that answers as ours does. As root
it makes the account and removes it again.
"""

import argparse
import os
import pwd
import sys
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.embedded import cpu_seconds, pss_mib

from support.accounts import temporary_account
from support.agent_host import AgentHost, FakeHub, running_host, wait_for

AT_ONCE = 20
HEARTBEAT_SECONDS = 8.6
"""What our hub asks for with its settings as they are."""


def start_all(host: AgentHost, count: int, limits: dict[str, int]) -> list[str]:
    """Start servers, a few at a time; return their ids."""
    started: list[str] = []
    while len(started) < count:
        specs = [
            host.spec("good", limits=limits) for _ in range(min(AT_ONCE, count - len(started)))
        ]
        for spec in specs:
            reply = host.put(spec)
            assert reply.status_code == 202, reply.text
        started += [spec["server_id"] for spec in specs]
        for spec in specs:
            host.wait_state(spec["server_id"], "ready")
    return started


def measure_idle(host: AgentHost, hub: FakeHub, seconds: float) -> None:
    """Print what agent and keeper use, and what is reported, while nothing changes."""
    hub.heartbeat_seconds = HEARTBEAT_SECONDS
    time.sleep(HEARTBEAT_SECONDS + 2)
    assert host.keeper is not None
    pids = {"agent": host.agent_pid, "keeper": host.keeper.pid}
    before = {name: cpu_seconds(pid) for name, pid in pids.items()}
    seen, began = len(hub.headers), time.perf_counter()
    time.sleep(seconds)
    passed = time.perf_counter() - began
    for name, pid in pids.items():
        used = (cpu_seconds(pid) - before[name]) / passed
        print(f"{name + ', idle':24}{used:10.2%} of a core, {pss_mib(pid):.1f} MiB PSS")
    sizes = [int(headers["Content-Length"]) for headers in hub.headers[seen:]]
    print(f"{'heartbeats':24}{len(sizes):10}, the largest {max(sizes) / 1000:.1f} kB")


def stop_at_once(host: AgentHost, hub: FakeHub, servers: list[str]) -> float:
    """Stop servers; return the seconds until the hub has heard of the last one's end."""
    waited, heard = set(servers), len(hub.reports)

    def all_told() -> bool:
        nonlocal heard
        while heard < len(hub.reports):
            told = hub.reports[heard]["servers"]
            waited.difference_update(one["server_id"] for one in told if one["state"] == "stopped")
            heard += 1
        return not waited

    began = time.perf_counter()
    for server in servers:
        host.stop_server(server)
    wait_for("their ends", all_told)
    return time.perf_counter() - began


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--servers", type=int, default=500)
    options.add_argument("--seconds", type=float, default=30)
    options.add_argument("--stop", type=int, default=50)
    options.add_argument("--limited", action="store_true")
    chosen = options.parse_args()
    with ExitStack() as stack:
        name = pwd.getpwuid(os.getuid()).pw_name
        if os.geteuid() == 0:
            name = stack.enter_context(temporary_account("bench")).name
        host = stack.enter_context(running_host(pwd.getpwnam(name)))
        hub = host.open_hub()
        began = time.perf_counter()
        limits = {"memory_bytes": 1 << 30, "processes": 100} if chosen.limited else {}
        servers = start_all(host, chosen.servers, limits)
        print(f"{chosen.servers} started in{'':8}{time.perf_counter() - began:10.1f} s")
        measure_idle(host, hub, chosen.seconds)
        stopped = stop_at_once(host, hub, servers[: chosen.stop])
        print(f"stop of {chosen.stop} at once{'':6}{stopped:10.2f} s")
    print(f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()

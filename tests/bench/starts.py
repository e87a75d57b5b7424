"""Measure servers below the agent: forked from the zygote against an executed `jupyter lab`.

    python tests/bench/starts.py [--alone 10] [--at-once 10]

From the request to a 200 at `api`, and the memory of idle servers without kernels. PSS is what the
kernel says in `/proc/PID/smaps_rollup`: pages that several share count in parts. As root the
servers run as an account that is made for it; the zygote's own start is printed apart.
"""

import argparse
import os
import pwd
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from carrel_agent.process.launch_spec import LaunchSpec
from support.accounts import temporary_account
from support.launching import Launcher, Server, build_spec, launcher

SETTLE_SECONDS = 2
Start = Callable[[LaunchSpec], Server]


def memory_mib(pid: int, kind: str) -> float:
    """Return one figure of a process's memory in MiB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/{pid}/smaps_rollup has no {kind} line")


def measure_alone(start: Start, account: pwd.struct_passwd, count: int) -> list[float]:
    """Return the seconds to readiness of servers that start one after the other."""
    seconds = []
    for _ in range(count):
        began = time.perf_counter()
        server = start(build_spec(account))
        server.wait_until_ready(step=0.002)
        seconds.append(time.perf_counter() - began)
        server.stop()
    return seconds


def measure_at_once(
    start: Start, account: pwd.struct_passwd, count: int
) -> tuple[float, float, float]:
    """Return seconds until all are ready, and mean PSS and private dirty memory in MiB."""
    began = time.perf_counter()
    servers = [start(build_spec(account)) for _ in range(count)]
    for server in servers:
        server.wait_until_ready(step=0.02)
    together = time.perf_counter() - began
    time.sleep(SETTLE_SECONDS)
    pss = statistics.mean(memory_mib(server.pid, "Pss") for server in servers)
    dirty = statistics.mean(memory_mib(server.pid, "Private_Dirty") for server in servers)
    for server in servers:
        server.stop()
    return together, pss, dirty


def report(name: str, start: Start, account: pwd.struct_passwd, alone: int, at_once: int) -> None:
    """Measure one way of starting and print its row."""
    seconds = measure_alone(start, account, alone)
    together, pss, dirty = measure_at_once(start, account, at_once)
    print(
        f"{name:10}{statistics.median(seconds):10.3f}{min(seconds):10.3f}{max(seconds):10.3f}"
        f"{together:14.3f}{pss:14.1f}{dirty:16.1f}",
        flush=True,
    )


def start_zygote(started: Launcher, account: pwd.struct_passwd) -> None:
    """Start the zygote, wait for its first server, and print how long that took."""
    began = time.perf_counter()
    started.start_zygote()
    server = started.fork(build_spec(account))
    answered = time.perf_counter() - began
    server.wait_until_ready()
    print(
        f"zygote: first fork after {answered:.2f} s,"
        f" {memory_mib(started.zygote_pid, 'Pss'):.0f} MiB PSS with one server"
    )
    server.stop()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--alone", type=int, default=10)
    options.add_argument("--at-once", type=int, default=10)
    chosen = options.parse_args()
    with ExitStack() as stack:
        name = pwd.getpwuid(os.getuid()).pw_name
        if os.geteuid() == 0:
            name = stack.enter_context(temporary_account("bench")).name
        account = pwd.getpwnam(name)
        started = stack.enter_context(launcher())
        start_zygote(started, account)
        print(
            f"\n{'':10}{'alone s':>10}{'best':>10}{'worst':>10}"
            f"{f'{chosen.at_once} at once s':>14}{'PSS MiB each':>14}{'private dirty':>16}"
        )
        report("forked", started.fork, account, chosen.alone, chosen.at_once)
        print(f"zygote: {memory_mib(started.zygote_pid, 'Pss'):.0f} MiB PSS with none running")
        report("executed", started.execute, account, chosen.alone, chosen.at_once)


if __name__ == "__main__":
    main()

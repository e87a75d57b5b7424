"""Measure what a start and a stop of a trivial server cost: processor time of each process.

    python tests/bench/start_costs.py [--starts 40] [--rounds 3]

The time on the clock depends on what else the machine does; processor time much less. Servers are
started and stopped one after another through the whole: proxy, hub, agent, keeper. Printed are the
medians of the rounds, in milliseconds a start and a stop.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.hub_contenders import Side, carrel_installation

NAMES = ("proxy", "hub", "agent", "keeper")


def processor_ms(pids: Iterable[int]) -> float:
    """Return what processes have used so far, in milliseconds."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e6


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def spend(
    side: Side, pids: dict[str, list[int]], count: int, do: Callable[[int], Awaitable[object]]
) -> dict[str, float]:
    before = {name: processor_ms(ids) for name, ids in pids.items()}
    began = time.perf_counter()
    for number in range(count):
        await do(number)
    found = {name: (processor_ms(ids) - before[name]) / count for name, ids in pids.items()}
    found["clock"] = (time.perf_counter() - began) * 1000 / count
    return found


async def measure(side: Side, pids: dict[str, list[int]], starts: int, rounds: int) -> None:
    """Print the table."""
    side.new_round()
    await side.create(starts)
    for number in range(3):  # what is loaded and compiled at first use
        await side.start(number)
        await side.stop(number)
    found: dict[str, list[dict[str, float]]] = {"start": [], "stop": []}
    for _ in range(rounds):
        found["start"].append(await spend(side, pids, starts, side.start))
        found["stop"].append(await spend(side, pids, starts, side.stop))
    columns = [*pids, "clock"]
    print(f"{'':8}" + "".join(f"{name:>10}" for name in columns) + "   ms each")
    for what, figures in found.items():
        medians = [statistics.median(one[name] for one in figures) for name in columns]
        print(f"{what:8}" + "".join(f"{ms:10.1f}" for ms in medians), flush=True)
    await side.client.aclose()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--starts", type=int, default=40)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--spy", metavar="NAME=FILE", action="append", default=[],
                         help="record a profile of a process with py-spy")  # fmt: skip
    chosen = options.parse_args()
    with carrel_installation() as (side, installation):
        proxy = installation.pid_of("proxy")
        pids = {name: [installation.pid_of(name)] for name in NAMES}
        pids["proxy"] += children(proxy)
        spies = []
        for word in chosen.spy:
            name, _, file = word.partition("=")
            command = ["py-spy", "record", "-p", str(pids[name][-1]), "-o", file, "-r", "300",
                       "-f", "raw", "-d", "600"]  # fmt: skip
            spies.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        asyncio.run(measure(side, pids, chosen.starts, chosen.rounds))
        for spy in spies:
            spy.send_signal(2)
            spy.wait()
    print(f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()

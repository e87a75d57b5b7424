"""Measure the hub over its REST API, beside JupyterHub where that is installed.

    python tests/bench/hub.py [--jupyterhub DIRECTORY] [--rounds 3] [--users 1000] [--spawns 50]

DIRECTORY holds `venv` with JupyterHub and `node_modules` with configurable-http-proxy. Both start
the same trivial server (`lite_server.py`). Ours is asked through its proxy, JupyterHub itself. They
take turns, stage by stage, and the median of the rounds counts; the last column is how many times
better ours is. Needs wrk. What concerns our hub alone is in `hub_alone.py`.
"""

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.hub_contenders import Side, carrel, jupyterhub

ALONE = 10
"""Starts of one server at a time, a round."""


async def one_at_a_time(sides: list[Side]) -> dict[str, float]:
    """Start servers one after the other, by turns: a machine is faster at one moment than at the
    next, and a start takes less than that."""
    took: dict[str, list[float]] = {side.name: [] for side in sides}
    for number in range(ALONE):
        for side in sides if number % 2 == 0 else reversed(sides):
            took[side.name].append(await side.start(number))
    return {name: statistics.median(one) for name, one in took.items()}


async def at_once(side: Side, count: int) -> float:
    began = time.perf_counter()
    await asyncio.gather(*[side.start(number) for number in range(ALONE, ALONE + count)])
    return time.perf_counter() - began


async def stop_all(side: Side, count: int) -> float:
    began = time.perf_counter()
    await asyncio.gather(*[side.stop(number) for number in range(ALONE + count)])
    return time.perf_counter() - began


async def measure(sides: list[Side], rounds: int, users: int, spawns: int) -> None:
    """Take turns and print the table."""
    stages: dict[str, Callable[[Side], Awaitable[float]] | None] = {
        "create users, users/s": lambda side: side.create(users),
        "GET /user, requests/s": Side.who,
        "GET /users?limit=100, requests/s": Side.listing,
        "start one, s": None,
        f"start {spawns} at once, s": lambda side: at_once(side, spawns),
        f"stop {ALONE + spawns} at once, s": lambda side: stop_all(side, spawns),
    }
    found: dict[str, dict[str, list[float]]] = {
        label: {side.name: [] for side in sides} for label in stages
    }
    for _ in range(rounds):
        for side in sides:
            side.new_round()
        for label, stage in stages.items():
            if stage is None:
                figures = await one_at_a_time(sides)
            else:
                figures = {side.name: await stage(side) for side in sides}
            for name, figure in figures.items():
                found[label][name].append(figure)
    for side in sides:
        await side.client.aclose()
    print(f"{'':36}" + "".join(f"{side.name:>14}" for side in sides))
    for label, taken in found.items():
        medians = [statistics.median(taken[side.name]) for side in sides]
        line = f"{label:36}" + "".join(f"{median:14.3f}" for median in medians)
        if len(medians) == 2:
            ours, theirs = medians
            ratio = theirs / ours if label.endswith(", s") else ours / theirs
            line += f"{ratio:10.2f}x"
        print(line, flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--jupyterhub", type=Path, metavar="DIRECTORY")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--users", type=int, default=1000)
    options.add_argument("--spawns", type=int, default=50)
    chosen = options.parse_args()
    with ExitStack() as stack:
        sides = [stack.enter_context(carrel())]
        if chosen.jupyterhub is not None:
            sides.append(stack.enter_context(jupyterhub(chosen.jupyterhub.resolve())))
        asyncio.run(measure(sides, chosen.rounds, chosen.users, chosen.spawns))
    print(f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()

"""How long it takes the other hubs to go on when one is killed under load.

    .venv/bin/python tests/bench/replicas.py [REPLICAS [CLIENTS]]

Two figures: the longest time in which no client got an answer that acknowledged something,
and when the starts asked for before were all ready, those that the dead one drove among them.
"""

import asyncio
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # `proxy` is the package of tests, not a script here

from integration.replicas import Fleet, open_fleet  # noqa: E402
from integration.test_replicas import Load, load_on  # noqa: E402

from support.postgres import run_postgres  # noqa: E402


async def longest_pause(load: Load, until: asyncio.Event) -> float:
    longest, known, since = 0.0, -1, time.monotonic()
    while not until.is_set():
        now, done = time.monotonic(), len(load.users) + len(load.starts)
        if done != known:
            known, since = done, now
        longest = max(longest, now - since)
        await asyncio.sleep(0.005)
    return longest


async def seconds_until_ready(fleet: Fleet, names: set[str]) -> float:
    began = time.monotonic()
    async with fleet.api() as client:
        found: set[str] = set()
        while not names <= found:
            reply = await client.get("/users", params={"state": "ready", "limit": "200"})
            if reply.status_code == 200:
                found = {user["name"] for user in reply.json()}
            await asyncio.sleep(0.02)
    return time.monotonic() - began


async def main(replicas: int = 2, clients: int = 2) -> None:
    with run_postgres() as server, tempfile.TemporaryDirectory(prefix="cin-") as directory:
        async with open_fleet(Path(directory), server, replicas=replicas) as fleet:
            enough = asyncio.Event()
            async with load_on(fleet, clients, 0.02) as load, asyncio.TaskGroup() as group:
                await load.more(20)
                await fleet.end(0, signal.SIGKILL)
                pause = group.create_task(longest_pause(load, enough))
                ready = group.create_task(seconds_until_ready(fleet, set(load.starts)))
                await load.more(40)
                await ready
                enough.set()
            print(
                f"{replicas} replicas, {clients} clients: longest pause {pause.result():.2f} s,"
                f" starts from before all ready within {ready.result():.2f} s,"
                f" {len(load.failed)} failed"
            )
            for line in load.failed:
                print("   ", line[:100])


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))

"""Two replicas in processes of their own, restarted and killed while people use them."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec.structs import replace
from proxy.hub import FakeHub
from proxy.running import Running, open_proxy, plain_route
from proxy.wire import Client

REPLICA = Path(__file__).parents[1] / "replica.py"
PATIENCE = 120.0


class Replica:
    """One of them."""

    def __init__(self, directory: Path, name: str) -> None:
        self.name = name
        self.path = directory / f"{name}.sock"
        self.log = directory / "log"
        self.process: Process | None = None

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, str(REPLICA), str(self.path), self.name, str(self.log), stdout=PIPE
        )
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            assert await self.process.stdout.readline() == b"started\n"

    async def end(self, *, kill: bool = False) -> int:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.kill() if kill else self.process.terminate()
        async with asyncio.timeout(PATIENCE):
            return await self.process.wait()


class Load:
    """People who use them all the time, and what they got."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.statuses: dict[str, int] = {}
        self.stop = asyncio.Event()
        self.changed = asyncio.Condition()

    async def client(self, number: int) -> None:
        async with self.running.client() as client:
            count = 0
            while not self.stop.is_set():
                count += 1
                await self._ask(client, f"/{number}/{count}", ("GET", "POST")[count % 2])
                async with self.changed:
                    self.changed.notify_all()

    async def _ask(self, client: Client, path: str, method: str) -> None:
        fields = ("Content-Length: 4",) if method == "POST" else ()
        client.get(path, *fields, method=method)
        if method == "POST":
            client.send(b"body")
        reply = await client.response()
        assert reply.status != 200 or reply.body == path.encode()
        self.statuses[f"{method} {path}"] = reply.status

    async def more(self, count: int) -> None:
        """Wait until so many more were answered."""
        enough = len(self.statuses) + count
        async with asyncio.timeout(PATIENCE), self.changed:
            await self.changed.wait_for(lambda: len(self.statuses) >= enough)


@asynccontextmanager
async def under_load(
    directory: Path, hub: FakeHub, clients: int = 8
) -> AsyncIterator[tuple[list[Replica], Load]]:
    replicas = [Replica(directory, name) for name in ("a", "b")]
    for replica in replicas:
        await replica.start()
    try:
        async with open_proxy(directory, hub, upstream_idle_seconds=0.5) as running:
            targets = [f"unix:{replica.path}" for replica in replicas]
            running.route(replace(plain_route(targets[0]), targets=targets))
            load = Load(running)
            async with asyncio.TaskGroup() as group:
                for number in range(clients):
                    group.create_task(load.client(number))
                await load.more(100)
                yield replicas, load
                await load.more(100)
                load.stop.set()
    finally:
        for replica in replicas:
            await replica.end(kill=True)


def delivered(directory: Path) -> Counter[str]:
    lines = (directory / "log").read_text().splitlines()
    asked = (line.partition(" ")[2] for line in lines)
    return Counter(what for what in asked if "/hub/" not in what)  # the proxy's own questions


async def test_a_rolling_restart_loses_nothing(short_dir: Path, hub: FakeHub) -> None:
    async with under_load(short_dir, hub) as (replicas, load):
        for replica in replicas:
            assert await replica.end() == 0
            await load.more(100)
            await replica.start()
            await load.more(100)
    assert set(load.statuses.values()) == {200}
    assert delivered(short_dir) == dict.fromkeys(load.statuses, 1)


async def test_a_killed_replica_costs_no_get_and_doubles_no_post(
    short_dir: Path, hub: FakeHub
) -> None:
    async with under_load(short_dir, hub) as (replicas, load):
        for replica in replicas:
            await replica.end(kill=True)
            await load.more(100)
            await replica.start()
            await load.more(100)
    got = load.statuses
    assert {status for what, status in got.items() if what.startswith("GET")} == {200}
    posts = {what: status for what, status in got.items() if what.startswith("POST")}
    assert set(posts.values()) <= {200, 502, 503}
    assert sum(status != 200 for status in posts.values()) <= 2 * 8  # those that were under way
    times = delivered(short_dir)
    assert all(times[what] == 1 for what, status in posts.items() if status == 200)
    assert all(times[what] <= 1 for what in posts)

"""Two and three hubs on one PostgreSQL behind the proxy, one of which ends under load."""

import asyncio
import contextlib
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import httpx
import pytest
from integration.replicas import Fleet, open_fleet

from support.postgres import Postgres, run_postgres

pytestmark = pytest.mark.timeout(300)

CLIENTS = 6


@dataclass
class Load:
    """People who are made and whose servers are started, over and over, by several clients.

    Attributes:
        users: Those whose making was acknowledged.
        starts: Those whose start was acknowledged.
        failed: Answers that were neither.
    """

    fleet: Fleet
    users: set[str] = field(default_factory=set)
    starts: set[str] = field(default_factory=set)
    failed: list[str] = field(default_factory=list)
    over: bool = False
    _numbers: "count[int]" = field(default_factory=count)

    async def run(self) -> None:
        async with self.fleet.api() as client:
            while not self.over:
                name = f"user{next(self._numbers)}"
                if await self._asked(client, f"/users/{name}"):
                    self.users.add(name)
                    if await self._asked(client, f"/users/{name}/server"):
                        self.starts.add(name)

    async def _asked(self, client: httpx.AsyncClient, path: str) -> bool:
        try:
            reply = await client.post(path, json={})
        except httpx.HTTPError as error:
            self.failed.append(f"{path}: {error!r}")
            return False
        if reply.status_code not in (201, 202):
            self.failed.append(f"{path}: {reply.status_code} {reply.text[:200]}")
        return reply.status_code in (201, 202)

    async def more(self, number: int) -> None:
        """Wait until so many more starts were acknowledged."""
        wanted = len(self.starts) + number

        async def there() -> bool:
            return len(self.starts) >= wanted

        await self.fleet.until(there)


@asynccontextmanager
async def load_on(fleet: Fleet, clients: int = CLIENTS) -> AsyncIterator[Load]:
    load = Load(fleet)
    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(load.run())
        try:
            yield load
        finally:
            load.over = True


async def all_are_ready(fleet: Fleet, names: set[str]) -> None:
    """Every acknowledged start has come to something, once."""
    async with fleet.api() as client:

        async def ready() -> bool:
            found: set[str] = set()
            page: list[dict[str, str]] = [{}]
            while page:
                query = {"state": "ready", "limit": "200", "offset": str(len(found))}
                reply = await client.get("/users", params=query)
                if reply.status_code != 200:
                    return False
                page = reply.json()
                found |= {user["name"] for user in page}
            return names <= found

        await fleet.until(ready)
        for name in names:
            reply = await client.get(f"/users/{name}")
            assert reply.json()["server"] == f"/user/{name}/"
    started = Counter(spec.user for spec in fleet.agent.specs)
    assert {name for name, times in started.items() if times > 1} == set()
    assert set(fleet.agent.launches.values()) <= {1}


@pytest.mark.parametrize("replicas", [2, 3])
async def test_one_is_killed_under_load_and_the_others_go_on(
    short_dir: Path, postgres_server: Postgres, replicas: int
) -> None:
    async with open_fleet(short_dir, postgres_server, replicas=replicas) as fleet:
        async with load_on(fleet) as load:
            await load.more(10)
            assert load.failed == []
            await fleet.end(0, signal.SIGKILL)
            await load.more(20)
            # What was under way at the one that ended is not known to those who asked for it.
            assert len(load.failed) <= CLIENTS, load.failed
        async with fleet.api() as client:
            for name in load.users:
                assert (await client.get(f"/users/{name}")).status_code == 200
        await all_are_ready(fleet, load.starts)

        async def gone() -> bool:
            return "hub0.sock" not in await fleet.targets()

        await fleet.until(gone)
        await fleet.start(0)

        async def back() -> bool:
            return len(await fleet.targets()) == replicas

        await fleet.until(back)


async def test_hubs_are_restarted_one_after_the_other_without_a_failed_request(
    short_dir: Path, postgres_server: Postgres
) -> None:
    async with open_fleet(short_dir, postgres_server, replicas=2) as fleet:
        async with load_on(fleet) as load:
            await load.more(10)
            for number in (0, 1):
                assert await fleet.end(number) == 0, fleet.log(number)
                await load.more(10)
                await fleet.start(number)
                await load.more(10)
        assert load.failed == []


@pytest.mark.parametrize("point", ["hub.spawn.placed", "hub.spawn.sent"])
async def test_a_start_whose_hub_dies_is_finished_by_another(
    short_dir: Path, postgres_server: Postgres, point: str
) -> None:
    async with open_fleet(short_dir, postgres_server, replicas=2) as fleet:
        await fleet.end(1)
        await fleet.start(1, failpoint=point)  # whoever comes there dies
        await fleet.end(0)  # so that it is this one
        process = fleet.processes[1]
        async with fleet.api() as client:
            assert (await client.post("/users/alice", json={})).status_code == 201
            starting = asyncio.timeout(60)
            async with starting, asyncio.TaskGroup() as group:
                start = client.post("/users/alice/server", json={})
                group.create_task(_ignoring_loss(start))
                await process.wait()
                fleet.processes.pop(1)
                await fleet.start(0)
        await all_are_ready(fleet, {"alice"})


async def _ignoring_loss(request) -> None:  # type: ignore[no-untyped-def]
    with contextlib.suppress(httpx.HTTPError):
        await request


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_hubs_come_back_by_themselves_when_their_database_does(
    short_dir: Path, how: signal.Signals
) -> None:
    """FLT-D1: what needs the database is refused meanwhile; nothing has to be started again."""
    with run_postgres() as postgres:
        async with open_fleet(short_dir, postgres, replicas=1) as fleet, fleet.api() as client:

            async def answered(method: str, path: str, *statuses: int) -> httpx.Response:
                async def once() -> httpx.Response | None:
                    reply = await client.request(method, path)
                    return reply if reply.status_code in statuses else None

                found: httpx.Response = await fleet.until(once)
                return found

            await answered("POST", "/users/alice", 201)
            postgres.kill(how)
            away = await answered("POST", "/users/bob", 503)
            assert away.headers["retry-after"]
            await asyncio.to_thread(postgres.come_back)
            await answered("POST", "/users/bob", 201, 409)
            await answered("POST", "/users/bob/server", 201, 202, 400)
            await all_are_ready(fleet, {"bob"})
            assert "Traceback" not in fleet.log(0)
            assert "task_failed" not in fleet.log(0)


async def test_a_hub_with_other_keys_is_refused(short_dir: Path, postgres_server: Postgres) -> None:
    async with open_fleet(short_dir, postgres_server, replicas=1) as fleet:
        fleet.write_config(1)
        config = short_dir / "hub1.toml"
        config.write_text(config.read_text().replace("s" * 32, "t" * 32))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "carrel_hub", "--config", str(config), "serve",
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, error = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 78
        assert b"another hub.signing_key" in error
        assert b"Traceback" not in error

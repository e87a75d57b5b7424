"""Two and three hubs on one PostgreSQL behind the proxy, one of which ends under load."""

import asyncio
import contextlib
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path

import httpx
import pytest
from integration.replicas import Fleet, open_fleet
from integration.standing import what_is_there

from support.postgres import Postgres, run_postgres

pytestmark = pytest.mark.timeout(300)

CLIENTS = 4
PAUSE_SECONDS = 0.2
"""Between what one client does: load that leaves two cores room to start a hub."""


@dataclass
class Load:
    """People who are made, start a server and look until it is ready, over and over.

    Each client does one after the other, so no more starts are under way than there are clients.

    Attributes:
        users: Those whose making was acknowledged.
        starts: Those whose start was acknowledged.
        failed: Answers that were none of what is to be expected.
    """

    fleet: Fleet
    pause: float = PAUSE_SECONDS
    users: set[str] = field(default_factory=set)
    starts: set[str] = field(default_factory=set)
    failed: list[str] = field(default_factory=list)
    over: bool = False
    _numbers: "count[int]" = field(default_factory=count)

    async def run(self) -> None:
        async with self.fleet.api() as client:
            while not self.over:
                name = f"user{next(self._numbers)}"
                if await self._asked(client, "POST", f"/users/{name}") is None:
                    continue
                self.users.add(name)
                if await self._asked(client, "POST", f"/users/{name}/server") is not None:
                    self.starts.add(name)
                    await self.fleet.until(partial(self._is_done, client, name), every=self.pause)
                await asyncio.sleep(self.pause)

    async def _is_done(self, client: httpx.AsyncClient, name: str) -> bool:
        reply = await self._asked(client, "GET", f"/users/{name}")
        return self.over or (reply is not None and bool(reply.json()["server"]))

    async def _asked(
        self, client: httpx.AsyncClient, method: str, path: str
    ) -> httpx.Response | None:
        try:
            reply = await client.request(method, path)
        except httpx.HTTPError as error:
            self.failed.append(f"{method} {path}: {error!r}")
            return None
        if reply.status_code not in (200, 201, 202):
            self.failed.append(f"{method} {path}: {reply.status_code} {reply.text[:200]}")
            return None
        return reply

    async def more(self, number: int) -> None:
        """Wait until so many more starts were acknowledged."""
        wanted = len(self.starts) + number

        async def there() -> bool:
            return len(self.starts) >= wanted

        await self.fleet.until(there)


@asynccontextmanager
async def load_on(
    fleet: Fleet, clients: int = CLIENTS, pause: float = PAUSE_SECONDS
) -> AsyncIterator[Load]:
    load = Load(fleet, pause)
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

        async def ready(name: str) -> bool:
            # Each by name: the pages of a list shift while servers become ready.
            reply = await client.get(f"/users/{name}")
            return reply.status_code == 200 and reply.json()["server"] == f"/user/{name}/"

        try:
            for name in names:
                await fleet.until(partial(ready, name))
        except TimeoutError:
            pytest.fail(await what_is_there(fleet, names))
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

        await fleet.forget_silence()
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
        await all_are_ready(fleet, load.starts)


@pytest.mark.parametrize("point", ["hub.spawn.placed", "hub.spawn.sent"])
async def test_a_start_whose_hub_dies_is_finished_by_another(
    short_dir: Path, postgres_server: Postgres, point: str
) -> None:
    dies = {1: point}  # whoever comes there
    async with open_fleet(short_dir, postgres_server, replicas=2, failpoints=dies) as fleet:
        await fleet.end(0, signal.SIGKILL)  # so that it is this one
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

"""A real standby of PostgreSQL takes over from a primary that was killed (FLT-D1)."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import httpx
import pytest
from integration.replicas import Fleet, open_fleet
from integration.test_replicas import all_are_ready

from support.postgres import READY_SECONDS, Postgres, run_postgres, run_standby

pytestmark = pytest.mark.timeout(300)


@dataclass
class Pair:
    """A primary, and the standby that every commit waits for."""

    primary: Postgres
    standby: Postgres

    @asynccontextmanager
    async def database(self) -> AsyncIterator[str]:
        """Have a database on both, and yield the address that docs/databases.md advises."""
        await self.primary.execute("CREATE DATABASE carrel")
        hosts = "&".join(f"host={one.directory}:5432" for one in (self.primary, self.standby))
        address = self.primary.url("carrel").partition("?")[0]
        yield f"{address}?{hosts}&target_session_attrs=read-write"

    async def until_commits_wait(self) -> None:
        await self.primary.set("synchronous_standby_names", "standby")
        state = "SELECT sync_state FROM pg_stat_replication WHERE application_name = 'standby'"
        async with asyncio.timeout(READY_SECONDS):
            while await self.primary.value(state) != "sync":  # noqa: ASYNC110
                await asyncio.sleep(0.02)


async def make_until(
    fleet: Fleet, client: httpx.AsyncClient, status: int, names: "count[int]"
) -> list[str]:
    """Make users until one is answered so; return those that were acknowledged."""
    made: list[str] = []

    async def answered() -> bool:
        name = f"user{next(names)}"
        reply = await client.post(f"/users/{name}")
        assert reply.status_code in (201, 503), reply.text
        if reply.status_code == 201:
            made.append(name)
        else:
            assert reply.headers["retry-after"]
            assert "database" in reply.json()["message"]
            assert str(fleet.url) not in reply.text
        return reply.status_code == status

    await fleet.until(answered)
    return made


async def test_a_standby_takes_over_and_nothing_that_was_acknowledged_is_lost(
    short_dir: Path,
) -> None:
    names = count()
    with run_postgres() as primary, run_standby(primary) as standby:
        pair = Pair(primary, standby)
        await pair.until_commits_wait()
        async with open_fleet(short_dir, pair, replicas=2) as fleet, fleet.api() as client:
            made = [*await make_until(fleet, client, 201, names)]
            assert (await client.post(f"/users/{made[0]}/server")).status_code in (201, 202)
            await all_are_ready(fleet, {made[0]})
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.to_thread(primary.kill, signal.SIGKILL))
                made += await make_until(fleet, client, 503, names)
            assert (await client.get(f"/users/{made[0]}")).status_code == 503
            assert await standby.value("SELECT pg_is_in_recovery()")
            await standby.execute("SELECT pg_promote()")
            made += await make_until(fleet, client, 201, names)
            assert len(made) > 1
            for name in made:
                assert (await client.get(f"/users/{name}")).status_code == 200, name
            assert (await client.post(f"/users/{made[-1]}/server")).status_code in (201, 202)
            await all_are_ready(fleet, {made[0], made[-1]})
            for number in fleet.numbers:
                assert fleet.processes[number].returncode is None, "nothing was started again"
                assert "Traceback" not in fleet.log(number)
                assert "task_failed" not in fleet.log(number)

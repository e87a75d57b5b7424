"""A database that is slow, read-only, full, or loses its power (FLT-D3, FLT-D4, FLT-D6).

Nothing is acknowledged that was not saved, whoever asks is told to come again, and all goes on by
itself when the database does.
"""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import httpx
import pytest
from integration.replicas import Fleet, open_fleet

from carrel_hub.db.postgres import WRITE_LOCK
from support.disks import LosesPower, fill, small_disk
from support.postgres import Postgres, run_postgres

pytestmark = pytest.mark.timeout(300)


class People:
    """Makes one user after the other, and knows which of them were acknowledged."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._numbers = count()
        self.made: list[str] = []
        self.refused: list[str] = []

    async def make(self) -> httpx.Response:
        name = f"user{next(self._numbers)}"
        reply = await self._client.post(f"/users/{name}")
        assert reply.status_code in (201, 503), reply.text
        (self.made if reply.status_code == 201 else self.refused).append(name)
        if reply.status_code == 503:
            assert reply.headers["retry-after"]
            assert "database" in reply.json()["message"]
            assert "sql" not in reply.text.lower()
        return reply

    async def until(self, fleet: Fleet, status: int) -> None:
        """Make more until one is answered so."""

        async def answered() -> bool:
            return (await self.make()).status_code == status

        await fleet.until(answered)

    async def all_is_as_said(self) -> None:
        for names, status in ((self.made, 200), (self.refused, 404)):
            for name in names:
                assert (await self._client.get(f"/users/{name}")).status_code == status, name


@asynccontextmanager
async def one_hub(directory: Path, server: Postgres) -> AsyncIterator[tuple[Fleet, People]]:
    async with open_fleet(directory, server, replicas=1) as fleet, fleet.api() as client:
        people = People(client)
        assert (await people.make()).status_code == 201
        yield fleet, people
        await people.until(fleet, 201)  # nothing was started again
        await people.all_is_as_said()
        assert "Traceback" not in fleet.log(0)
        assert "task_failed" not in fleet.log(0)


async def test_writers_are_refused_in_time_while_another_holds_the_database(
    short_dir: Path, postgres_server: Postgres
) -> None:
    async with (
        one_hub(short_dir, postgres_server) as (fleet, people),
        fleet.api() as client,
        fleet.database() as other,
    ):
        await other.execute("SELECT pg_advisory_lock($1)", WRITE_LOCK)
        assert (await people.make()).status_code == 503
        assert (await client.get("/users/user0")).status_code == 200  # readers do not wait


async def test_a_primary_that_is_one_no_more_is_read_and_left_for_the_next(
    short_dir: Path,
) -> None:
    """As after a fail-over: nothing can be written, and whoever connects anew is led elsewhere."""
    with run_postgres() as server:
        async with one_hub(short_dir, server) as (fleet, people), fleet.api() as client:
            await server.set("default_transaction_read_only", "on")
            await people.until(fleet, 503)
            before = await _connections(fleet)
            assert (await client.get("/users/user0")).status_code == 200
            assert (await people.make()).status_code == 503
            assert before.isdisjoint(await _connections(fleet))
            await server.set("default_transaction_read_only", "off")


async def _connections(fleet: Fleet) -> set[int]:
    """Return the server's processes for the hub."""
    query = "SELECT pid FROM pg_stat_activity WHERE application_name = 'carrel-hub'"
    async with fleet.database() as connection:
        return {
            row["pid"] for row in await connection.fetch(f"{query} AND query LIKE '%advisory%'")
        }


@pytest.mark.skipif(os.geteuid() != 0, reason="a file system is mounted by root")
async def test_what_a_full_disk_takes_no_more_is_not_acknowledged(short_dir: Path) -> None:
    with small_disk("160m") as disk, run_postgres(data=disk / "data") as server:
        async with one_hub(short_dir, server) as (fleet, people), fleet.api() as client:
            filler = fill(disk)
            await people.until(fleet, 503)
            assert (await client.get("/users/user0")).status_code == 200
            filler.unlink()
            if server.process.poll() is not None:  # it gave up on its log
                server.come_back()


@pytest.mark.skipif(os.geteuid() != 0, reason="a file system is mounted by root")
async def test_no_loss_of_power_takes_what_was_acknowledged(short_dir: Path) -> None:
    with LosesPower() as disk, run_postgres(durable=True, data=disk.path / "data") as server:
        async with one_hub(short_dir, server) as (fleet, people):
            disk.sync()  # what was there before
            for _ in range(20):
                assert (await people.make()).status_code == 201
            server.kill(signal.SIGKILL)
            disk.lose_power()
            server.come_back()
            await people.until(fleet, 201)

"""Replicas on PostgreSQL, in one process."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from hub import backends
from hub.world import World, open_world
from sqlalchemy import func, update
from sqlmodel import col

from carrel_hub.context import Hub
from carrel_hub.db.engine import Database
from carrel_hub.db.models import Replica
from carrel_hub.replicas.presence import join
from carrel_shared.tasks import TaskOwner
from support.postgres import Postgres


@pytest.fixture
async def world(postgres_server: Postgres) -> AsyncIterator[World]:
    """One replica on PostgreSQL, with its neighbours."""
    backends.postgres = postgres_server
    try:
        async with open_world() as made:
            await join(made.hub)
            yield made
    finally:
        backends.postgres = None


@asynccontextmanager
async def another(world: World, number: int = 2, **changes: object) -> AsyncIterator[Hub]:
    """A further replica on the same database; it has not joined yet."""
    listen = f"unix:{world.hub.settings.state_dir}/hub{number}.sock"
    settings = world.hub.settings.model_copy(update={"listen": listen, **changes})
    database = Database(settings.effective_database_url)
    hub = Hub(settings, database, world.clock, TaskOwner(), agents=world.hub.agents)
    try:
        yield hub
    finally:
        hub.wakeups.stop()
        await hub.tasks.close()
        await database.close()


async def silence(world: World, hub: Hub, seconds: int) -> None:
    """Have a replica not been heard for so long."""
    then = func.clock_timestamp() - timedelta(seconds=seconds)
    async with world.hub.database.write() as session:
        mine = col(Replica.id) == hub.database.replica
        await session.exec(update(Replica).where(mine).values(seen_at=then))

"""The hub as commands beside the running one use it: its settings and its database, no servers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from carrel_hub.context import Hub
    from carrel_hub.settings import HubSettings


@asynccontextmanager
async def opened_hub(settings: "HubSettings") -> "AsyncIterator[Hub]":
    """Open the hub's database for one command.

    Raises:
        SchemaError: The database is another version's.
        SigningKeyError: The signing key cannot be written.
    """
    from carrel_hub.auth.signing import set_signing_key
    from carrel_hub.context import Hub
    from carrel_hub.db.engine import Database
    from carrel_hub.db.expected import check_schema
    from carrel_shared.clock import SystemClock
    from carrel_shared.tasks import TaskOwner

    if settings.signing_key is not None:
        set_signing_key(settings.state_dir, settings.signing_key.get_secret_value())
    database = Database(settings.effective_database_url)
    try:
        await check_schema(database)
        yield Hub(settings=settings, database=database, clock=SystemClock(), tasks=TaskOwner())
    finally:
        await database.close()

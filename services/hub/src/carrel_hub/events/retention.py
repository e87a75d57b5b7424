"""The history is kept for `history_days` and no longer; what has expired, for a day."""

import asyncio
from datetime import timedelta

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import col, delete, select

from carrel_hub.auth.sessions import purge_expired
from carrel_hub.context import Hub
from carrel_hub.db.models import Event

log = structlog.get_logger(__name__)

AT_A_TIME = 2000
"""How many rows one transaction takes away, so that nobody waits for it."""

PRUNE_SECONDS = 3600.0


async def prune(hub: Hub) -> int:
    """Take away what is older than `history_days`, and return how much that was.

    What has expired goes as well: sessions, tokens, codes, links.
    """
    async with hub.database.write() as session:
        await purge_expired(session, now=hub.clock.now())
    oldest = hub.clock.now() - timedelta(days=hub.settings.history_days)
    gone = 0
    while True:
        async with hub.database.write() as session:
            old = select(Event.id).where(col(Event.at) < oldest).limit(AT_A_TIME)
            done = await session.exec(delete(Event).where(col(Event.id).in_(old)))
        gone += done.rowcount
        if done.rowcount < AT_A_TIME:
            return gone


async def keep_pruning(hub: Hub) -> None:
    """Prune now and every hour. Any replica does it; what is gone already is no trouble."""
    while True:
        try:
            gone = await prune(hub)
            if gone:
                log.info("history_pruned", events=gone, days=hub.settings.history_days)
        except SQLAlchemyError as error:
            log.error("history_not_pruned", reason=str(error)[:200])
        await asyncio.sleep(PRUNE_SECONDS)

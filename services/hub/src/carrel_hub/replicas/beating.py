"""Keeps this process among the replicas, and tells it what the others did."""

import asyncio

import structlog
from sqlalchemy.exc import SQLAlchemyError

from carrel_hub.context import ROUTES, Hub
from carrel_hub.replicas import BEAT_SECONDS, REPLICAS
from carrel_hub.replicas.link import Beat, Link, LinkLostError
from carrel_hub.replicas.presence import UnlikeReplicasError, forget_the_gone, join, show

log = structlog.get_logger(__name__)


class Beating:
    """The heartbeat of this process, on PostgreSQL."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._link = Link(hub.settings.effective_database_url, hub.wakeups.hear)
        self._last: Beat | None = None
        self._lost = False
        self._shown = False

    async def run(self) -> None:
        """Beat until cancelled."""
        hub, link = self._hub, self._link
        hub.wakeups.relay = link.tell
        unhear = hub.database.on_route_change(lambda: link.tell((ROUTES,)))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(link.keep_telling(), name="hints")
                while True:
                    await self._turn()
                    await asyncio.sleep(BEAT_SECONDS)
        finally:
            unhear()
            await link.close()

    async def _turn(self) -> None:
        hub = self._hub
        try:
            beat = await self._link.beat(hub.database.replica)
            if not beat.known and not hub.wakeups.stopping:
                # The others took over what this process did, or the database was restored.
                log.warning("replica_was_silent", replica=hub.database.replica)
                await join(hub)
            if hub.wakeups.serving and not self._shown:
                await show(hub)
                self._shown = True
            if beat.gone:
                await forget_the_gone(hub)
        except (LinkLostError, SQLAlchemyError) as error:
            if not self._lost:
                log.warning("database_lost", reason=str(error).partition("\n")[0][:200])
            self._lost = True
            return
        except UnlikeReplicasError as error:
            log.error("replica_left_out", reason=str(error))
            return
        if self._lost:
            log.info("database_back")
        self._lost = False
        self._pass_on(beat)

    def _pass_on(self, beat: Beat) -> None:
        last, self._last = self._last, beat
        if last is None or last.others != beat.others:
            log.info("replicas_there", others=len(beat.others.split()))
            self._hub.wakeups.hear((REPLICAS, ROUTES))
        elif last.routes != beat.routes:
            self._hub.wakeups.hear((ROUTES,))

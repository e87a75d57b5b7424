"""What a hub does when nobody asks: drive servers, push routes, forget."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import structlog

from carrel_hub.context import Hub
from carrel_hub.events.retention import keep_pruning
from carrel_hub.replicas.presence import join
from carrel_hub.routing.changes import ensure_counter
from carrel_hub.routing.desired import origin
from carrel_hub.routing.push import Pusher
from carrel_hub.services.driver import ServiceDriver
from carrel_hub.services.managed import any_left
from carrel_hub.settings import PeerSettings
from carrel_hub.spawns.reconciler import Reconciler
from carrel_hub.startup import apply_settings
from carrel_shared.backoff import backoff_seconds

log = structlog.get_logger(__name__)

LONGEST_PAUSE_SECONDS = 30.0
"""How long at most until what broke is begun anew."""


async def start_background(hub: Hub) -> None:
    """Start the tasks of this process; `hub.tasks` owns them.

    Raises:
        StartupError: The settings do not fit what is there.
        UnlikeReplicasError: Another hub on the database has other settings.
    """
    await join(hub)
    if not hub.database.is_sqlite:
        from carrel_hub.replicas.beating import Beating

        hub.tasks.start(keep(lambda: Beating(hub).run(), "heartbeat"), name="heartbeat")
    async with hub.database.write() as session:
        await ensure_counter(session, origin(hub.settings), at=hub.clock.now())
    await apply_settings(hub)
    for peer in hub.settings.proxies:
        name = f"push-{peer.name}"
        hub.tasks.start(keep(partial(_push, hub, peer), name), name=name)
    hub.tasks.start(keep(lambda: Reconciler(hub).run(), "reconciler"), name="reconciler")
    if any(entry.command for entry in hub.settings.services) or await any_left(hub):
        hub.tasks.start(keep(lambda: ServiceDriver(hub).run(), "services"), name="services")
    hub.tasks.start(keep(lambda: keep_pruning(hub), "history"), name="history")


async def _push(hub: Hub, peer: PeerSettings) -> None:
    await Pusher(hub, peer).run()


async def keep(work: Callable[[], Awaitable[None]], name: str) -> None:
    """Do what has no end, and begin anew when it breaks: a hub without it looks sound and is not.

    Args:
        work: Begun anew each time; nothing is left over of what broke.
    """
    broken = 0
    while True:
        try:
            await work()
        except Exception:
            log.exception("background_broken", task=name)
        await asyncio.sleep(backoff_seconds(broken, first=1, longest=LONGEST_PAUSE_SECONDS))
        broken += 1

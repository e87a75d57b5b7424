"""What a hub does when nobody asks: drive servers, push routes, forget."""

from carrel_hub.context import Hub
from carrel_hub.events.retention import keep_pruning
from carrel_hub.replicas.presence import join
from carrel_hub.routing.changes import ensure_counter
from carrel_hub.routing.desired import origin
from carrel_hub.routing.push import Pusher
from carrel_hub.services.driver import ServiceDriver
from carrel_hub.services.managed import any_left
from carrel_hub.spawns.reconciler import Reconciler
from carrel_hub.startup import apply_settings


async def start_background(hub: Hub) -> None:
    """Start the tasks of this process; `hub.tasks` owns them.

    Raises:
        StartupError: The settings do not fit what is there.
        UnlikeReplicasError: Another hub on the database has other settings.
    """
    await join(hub)
    if not hub.database.is_sqlite:
        from carrel_hub.replicas.beating import Beating

        hub.tasks.start(Beating(hub).run(), name="heartbeat")
    async with hub.database.write() as session:
        await ensure_counter(session, origin(hub.settings), at=hub.clock.now())
    await apply_settings(hub)
    for peer in hub.settings.proxies:
        hub.tasks.start(Pusher(hub, peer).run(), name=f"push-{peer.name}")
    hub.tasks.start(Reconciler(hub).run(), name="reconciler")
    if any(entry.command for entry in hub.settings.services) or await any_left(hub):
        hub.tasks.start(ServiceDriver(hub).run(), name="services")
    hub.tasks.start(keep_pruning(hub), name="history")

"""A running hub: two listeners, the background tasks, and their orderly end."""

import asyncio
import gc
import time

import structlog
from sqlalchemy import select
from sqlmodel import col

from carrel_hub import __version__
from carrel_hub.app import create_fleet_app, create_internal_app, create_public_app
from carrel_hub.auth.signing import forget_former, set_signing_key, signer_for
from carrel_hub.background import start_background
from carrel_hub.context import Hub
from carrel_hub.db.engine import Database
from carrel_hub.db.expected import check_schema
from carrel_hub.db.models import FleetAuthority
from carrel_hub.db.prepared import Prepared
from carrel_hub.hosts.opened import Fleet
from carrel_hub.hosts.peers import JoinedHosts
from carrel_hub.hosts.places import own_files
from carrel_hub.metrics.measures import Measures
from carrel_hub.replicas.presence import leave
from carrel_hub.settings import HubSettings
from carrel_hub.spawns.agents import AgentClients
from carrel_shared.addresses import bind_address, parse_address
from carrel_shared.clock import SystemClock
from carrel_shared.fleet import RenewedContext, listener_options
from carrel_shared.serving import Listener, serve
from carrel_shared.tasks import TaskOwner

log = structlog.get_logger(__name__)

_AUTHORITIES = Prepared(select(col(FleetAuthority.id)), int)

LEAVE_SECONDS = 3.0
"""How long the database may take to note that this replica is leaving."""

GARBAGE = 20_000
"""How many objects more than went may have come before the collector looks; a few megabytes."""

SOCKET_MODE = 0o660
"""Of unix sockets: the account and its group connect; who may at all, their directory says."""


async def serve_hub(settings: HubSettings) -> None:
    """Run a hub until SIGTERM or SIGINT.

    Raises:
        AddressError: An address is taken.
        SchemaError: The database is of another version.
        SigningKeyError: The cookie key cannot be used.
        EmptyKeyError: No caller has a key.
        AuthorityError: The authority for other machines cannot be used.
    """
    began = time.monotonic()
    if settings.signing_key is not None:
        set_signing_key(settings.state_dir, settings.signing_key.get_secret_value())
    signer_for(settings.state_dir)
    database = Database(settings.effective_database_url)
    tasks = TaskOwner()
    fleet = Fleet()
    joined = JoinedHosts(database, fleet, settings.state_dir)
    agents = AgentClients(settings.agents, joined=joined.find)
    measures = Measures(settings.metrics_prefix)
    hub = Hub(
        settings, database, SystemClock(), tasks, agents=agents, fleet=fleet, measures=measures
    )
    try:
        await check_schema(database)
        await open_fleet(hub)
        listeners = [
            Listener(app, [bind_address(parse_address(address), mode=SOCKET_MODE)], drains=drains)
            for app, address, drains in (
                (create_internal_app(hub), settings.internal_listen, False),
                (create_public_app(hub), settings.listen, True),
            )
        ]
        if settings.fleet_listen is not None:
            listeners.append(open_to_fleet(hub, settings.fleet_listen))
        await start_background(hub)

        def started() -> None:
            # What was loaded stays: the collector need not look at it again. Requests leave few
            # cycles behind, so it may come less often than after every 700 new objects.
            gc.collect()
            gc.freeze()
            gc.set_threshold(GARBAGE)
            hub.wakeups.serving = True
            measures.started(time.monotonic() - began)
            log.info("hub_started", version=__version__, listen=settings.listen)

        leaving: list[asyncio.Task[None]] = []

        def stopping() -> None:
            hub.wakeups.stop()
            leaving.append(tasks.start(leave(hub), name="leave"))

        await serve(
            listeners,
            on_started=started,
            on_stopping=stopping,
            drain_seconds=settings.effective_drain_seconds,
        )
        await asyncio.wait(leaving, timeout=LEAVE_SECONDS)
        log.info("hub_stopped")
    finally:
        hub.wakeups.stop()
        await tasks.close()
        await agents.close()
        await database.close()


async def open_fleet(hub: Hub) -> None:
    """Open the authority, if this hub has other machines; else nothing of it is even loaded.

    Raises:
        AuthorityError: It cannot be used.
    """
    wanted = hub.settings.fleet_listen is not None
    if not wanted and not await hub.database.fetch(_AUTHORITIES):
        forget_former(hub.settings.state_dir)
        return
    from carrel_hub.hosts.fleet import open_authority

    await open_authority(hub, make=wanted)


def open_to_fleet(hub: Hub, address: str) -> Listener:
    """Return the listener for other machines, whose certificate is kept renewed.

    Raises:
        AddressError: The address is taken.
        AuthorityError: The authority cannot be used.
    """
    from carrel_hub.hosts.fleet import keep_certificates, renew_own

    state_dir = hub.settings.state_dir
    renew_own(hub.fleet.authority, state_dir, hub.clock)
    renewed = RenewedContext(own_files(state_dir), everybody_has_one=False)
    hub.tasks.start(keep_certificates(hub, renewed), name="certificates")
    sockets = [bind_address(parse_address(address))]
    return Listener(create_fleet_app(hub), sockets, listener_options(renewed))

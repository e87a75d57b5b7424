"""Waiting for a server to change, holding no transaction meanwhile."""

from collections.abc import Callable

from carrel_hub.context import Hub
from carrel_hub.db.models import Server

LOOK_SECONDS = 1.0
"""How often the row is read when no hint comes, as when another process drives it."""


async def wait_for_server(
    hub: Hub, server_id: str, settled: Callable[[Server], bool], *, seconds: float
) -> Server | None:
    """Return the row as soon as `settled` says so, or as it is after `seconds`."""
    until = hub.clock.monotonic() + seconds
    with hub.wakeups.watch(server_id) as watch:
        while True:
            async with hub.database.read() as session:
                row = await session.get(Server, server_id)
            left = until - hub.clock.monotonic()
            if row is None or settled(row) or left <= 0 or hub.wakeups.stopping:
                return row
            await watch.wait(min(left, LOOK_SECONDS))

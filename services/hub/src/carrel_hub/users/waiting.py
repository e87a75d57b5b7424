"""Waiting for a server to change, holding no transaction meanwhile."""

from collections.abc import Callable
from typing import Any, NamedTuple

from sqlalchemy import bindparam, select
from sqlmodel import col

from carrel_hub.context import Hub
from carrel_hub.db.models import Server
from carrel_hub.db.prepared import Prepared

LOOK_SECONDS = 1.0
"""How often the row is read when no hint comes, as when another process drives it."""


class Standing(NamedTuple):
    """How a server stands, as `db.models.Server`."""

    generation: int
    state: str
    failure: dict[str, Any] | None


_STANDING = Prepared(
    select(*(col(getattr(Server, name)) for name in Standing._fields)).where(
        col(Server.id) == bindparam("server_id")
    ),
    Standing,
)


async def wait_for_server(
    hub: Hub, server_id: str, settled: Callable[[Standing], bool], *, seconds: float
) -> Standing | None:
    """Return how a server stands as soon as `settled` says so, or as it is after `seconds`."""
    until = hub.clock.monotonic() + seconds
    with hub.wakeups.watch(server_id) as watch:
        while True:
            row = await hub.database.fetch_one(_STANDING, server_id=server_id)
            left = until - hub.clock.monotonic()
            if row is None or settled(row) or left <= 0 or hub.wakeups.stopping:
                return row
            await watch.wait(min(left, LOOK_SECONDS))

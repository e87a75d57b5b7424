"""Choosing a host for a start that was let in: in its request if that can be, else by and by."""

from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.context import Hub
from carrel_hub.db.models import Server, User
from carrel_hub.spawns.offers import needs_of, offers
from carrel_hub.spawns.placement import Needs, Placement, place
from carrel_hub.spawns.transitions import tell


async def place_server(session: AsyncSession, hub: Hub, row: Server, user: User) -> Placement:
    """Choose a host for a server, and have the row name it if there is one."""
    needs = await needs_of(session, hub.settings, row, user)
    there_are = await offers(session, hub.settings, hub.clock.now())
    placement = place(needs, there_are, hub.settings.placement)
    if placement.host is not None:
        _go_to(session, hub, row, needs, placement)
    return placement


def _go_to(
    session: AsyncSession, hub: Hub, row: Server, needs: Needs, placement: Placement
) -> None:
    row.host = placement.host
    row.reserved_memory, row.reserved_cores = needs.memory, needs.cores
    row.reserved_gpus = needs.gpus
    row.attempts, row.next_attempt_at = 0, None
    row.progress = 10
    row.progress_message = f"Asking host {placement.host} to start the server"
    session.add(row)
    data: dict[str, object] = {"host": placement.host, "reason": placement.reason}
    if placement.refused:
        data["refused"] = dict(placement.refused)
    tell(session, row, "server.placed", at=hub.clock.now(), data=data)

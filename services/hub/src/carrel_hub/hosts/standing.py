"""How a host stands, and which there are."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import select as columns
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.db.asking import ask, by_key, seen
from carrel_hub.db.models import AgentHost
from carrel_hub.db.prepared import Prepared
from carrel_hub.settings import HubSettings

CLOCK_TOLERANCE_SECONDS = 30.0
"""Certificates and sign-ins go by the clock: a host whose clock is off by more gets no servers."""


HOST = by_key(AgentHost, "name")
"""A host to look at, by name."""

_COLUMNS, _make = seen(AgentHost)
_HOSTS = Prepared(columns(*_COLUMNS), _make)


class Standing(StrEnum):
    """What can be said of a host."""

    JOINING = "joining"
    """It has credentials and has not reported with them yet."""
    READY = "ready"
    DRAINING = "draining"
    """What runs there goes on, and nothing new is placed there."""
    UNREACHABLE = "unreachable"
    """It is silent. What runs there is unknown, not dead."""
    GONE = "gone"
    """It left or was removed; its credentials are worth nothing."""


def standing_of(host: AgentHost, *, now: datetime, silence: timedelta) -> Standing:
    """Return how a host stands. Pure."""
    if host.removed_at is not None:
        return Standing.GONE
    if host.seen_at is None:
        return Standing.JOINING
    if now - host.seen_at > silence:
        return Standing.UNREACHABLE
    return Standing.DRAINING if host.draining else Standing.READY


def is_heard(host: AgentHost, *, now: datetime, silence: timedelta) -> bool:
    """Whether its agent has reported lately. Pure."""
    return host.seen_at is not None and now - host.seen_at <= silence


def relay_of(host: AgentHost) -> str | None:
    """Return where proxies reach a host's servers; None for one that shares a machine with them."""
    if host.joined_at is None:
        return None
    address = f"[{host.address}]" if ":" in host.address else host.address
    return f"https://{address}:{host.relay_port}"


async def known_hosts(session: AsyncSession, settings: HubSettings) -> Sequence[AgentHost]:
    """Return every host that may be called: those of the settings, and those that have joined.

    One that has not reported yet is there with what is known of it. They are to look at.
    """
    rows = {row.name: row for row in await ask(session, _HOSTS)}
    named = [peer.name for peer in settings.agents]
    joined = sorted(
        name
        for name, row in rows.items()
        if row.joined_at is not None and row.removed_at is None and name not in named
    )
    return [rows.get(name) or AgentHost(name=name) for name in (*named, *joined)]


async def known_names(session: AsyncSession, settings: HubSettings) -> list[str]:
    """Return the names of those hosts."""
    return [host.name for host in await known_hosts(session, settings)]


async def relays(session: AsyncSession) -> dict[str, str]:
    """Return where the relays of those hosts are that have joined."""
    statement = select(AgentHost).where(
        col(AgentHost.joined_at).is_not(None), col(AgentHost.removed_at).is_(None)
    )
    hosts = (await session.exec(statement)).all()
    return {host.name: relay for host in hosts if (relay := relay_of(host)) is not None}

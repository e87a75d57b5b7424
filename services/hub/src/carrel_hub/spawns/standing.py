"""Where starts stand in the line, for those who watch. The line is `carrel_hub.spawns.line`."""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, and_
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.db.models import Event, Server
from carrel_hub.spawns.states import State

if TYPE_CHECKING:  # the hub holds a `WaitingLine`
    from carrel_hub.context import Hub

FRESH_SECONDS = 1.0
"""How long what is known of the line is shown before it is read again."""

ARRIVAL = (col(Server.requested_at), col(Server.id))
"""The order in which starts came."""

_STARTS_LOOKED_AT = 20


def waits() -> ColumnElement[bool]:
    """The rows that wait in the line."""
    return and_(col(Server.state) == State.QUEUED, col(Server.admitted_at).is_(None))


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a start stands in the line.

    Attributes:
        place: 1 for the next one.
        of: How many wait.
        seconds: How long it likely takes until it is let in; None when nothing is known of that.
    """

    place: int
    of: int
    seconds: int | None

    @property
    def words(self) -> str:
        """The same for people."""
        if self.place == 1:
            words = "Waiting for its turn to start: it is the next"
        else:
            words = f"Waiting for its turn to start: number {self.place} of {self.of}"
        return words if self.seconds is None else f"{words}, {_about(self.seconds)}"


class WaitingLine:
    """What this process last read of the line, so that a thousand watchers do not read it each."""

    def __init__(self) -> None:
        self._read_at = -math.inf
        self._places: Mapping[str, int] = {}
        self._seconds_each: float | None = None
        self._reading = asyncio.Lock()

    async def standing(self, hub: "Hub", row: Server) -> Standing | None:
        """Return where a server stands in the line, or None when it does not wait."""
        if row.state != State.QUEUED or row.admitted_at is not None:
            return None
        async with self._reading:
            if hub.clock.monotonic() - self._read_at >= FRESH_SECONDS:
                await self._read(hub)
        place = self._places.get(row.id, len(self._places) + 1)
        seconds = None if self._seconds_each is None else math.ceil(place * self._seconds_each)
        return Standing(place, max(place, len(self._places)), seconds)

    async def _read(self, hub: "Hub") -> None:
        async with hub.database.read() as session:
            ids = (await session.exec(select(Server.id).where(waits()).order_by(*ARRIVAL))).all()
            took = await _seconds_of_a_start(session)
        self._places = {server_id: place for place, server_id in enumerate(ids, start=1)}
        at_once = hub.settings.concurrent_spawn_limit or 1
        self._seconds_each = None if took is None else took / at_once
        self._read_at = hub.clock.monotonic()


async def _seconds_of_a_start(session: AsyncSession) -> float | None:
    latest = select(Event.data).where(Event.kind == "server.ready").order_by(col(Event.id).desc())
    found = [
        float(data["seconds"])
        for data in (await session.exec(latest.limit(_STARTS_LOOKED_AT))).all()
        if isinstance(data.get("seconds"), int | float)
    ]
    return sum(found) / len(found) if found else None


def _about(seconds: int) -> str:
    if seconds < 10:
        return "a few seconds to go"
    if seconds < 90:
        return f"about {math.ceil(seconds / 10) * 10} seconds to go"
    return f"about {math.ceil(seconds / 60)} minutes to go"

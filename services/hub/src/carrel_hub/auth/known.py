"""Whose a token or a browser's session is, remembered for a moment.

What is remembered is good for `KEPT_SECONDS` and while the identity number (`db.identity`) stands
where it stood. After a write of this process the number is read again before anything is used, so a
change is in force at once here; other processes' changes are noticed within `LOOK_SECONDS`. Only
what was found is remembered, never that something was not; and whether a token or a session has
expired is for whoever uses it to look at.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.db.engine import Database
from carrel_hub.db.identity import NUMBER
from carrel_shared.clock import Clock

T = TypeVar("T")

LOOK_SECONDS = 0.5
"""How often the number is looked at, at most."""

KEPT_SECONDS = 60.0
MOST = 1024
"""How many are remembered; those that were not used for longest go first."""


@dataclass(frozen=True, slots=True)
class _Entry(Generic[T]):
    value: T
    number: int
    at: float


class Known(Generic[T]):
    """What is remembered.

    Args:
        database: Where it comes from.
        clock: The injected clock.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._entries: OrderedDict[str, _Entry[T]] = OrderedDict()
        self._number = 0
        self._writes = -1
        self._looked = float("-inf")

    async def find(self, key: str, load: Callable[[AsyncSession], Awaitable[T | None]]) -> T | None:
        """Return what is remembered under a key, else what `load` finds.

        Args:
            load: Reads it in the transaction it is given; None when there is nothing.
        """
        number = await self._current()
        entry = self._entries.get(key)
        now = self._clock.monotonic()
        if entry is not None and entry.number == number and now - entry.at < KEPT_SECONDS:
            self._entries.move_to_end(key)
            return entry.value
        async with self._database.read() as db:
            value = await load(db)  # as new as the number, or newer
        if value is None:
            self._entries.pop(key, None)
        else:
            self._entries[key] = _Entry(value, number, now)
            self._entries.move_to_end(key)
            if len(self._entries) > MOST:
                self._entries.popitem(last=False)
        return value

    def forget(self) -> None:
        """Forget everything."""
        self._entries.clear()

    async def _current(self) -> int:
        """Return the number, as of now in this process and of lately elsewhere."""
        now, writes = self._clock.monotonic(), self._database.writes
        if writes != self._writes or now - self._looked >= LOOK_SECONDS:
            number = await self._database.fetch_one(NUMBER) or 0
            self._number = max(self._number, number)
            self._writes, self._looked = writes, now
        return self._number

"""A hub that hangs: whoever waits for one of its pages is told so in two seconds, not in an hour.

A page may take its time, and a sign-in more. So it is not the page that is timed: while somebody
waits, the same hub is asked something that it always answers at once.
"""

import asyncio
from typing import TYPE_CHECKING

import structlog

from carrel_proxy.engine.upstream import Pool
from carrel_proxy.errors import BusyError, TargetAwayError, WrongPeerError
from carrel_shared.tasks import TaskOwner

if TYPE_CHECKING:
    from carrel_proxy.engine.edge import Edge
    from carrel_proxy.engine.exchange import Exchange

log = structlog.get_logger(__name__)

PATIENCE_SECONDS = 0.4
"""How long a page may take before the hub is asked."""
CHANGE_PATIENCE_SECONDS = 10.0
"""The same for what may change something: it may be done in spite of what the client is told."""
ANSWER_SECONDS = 1.0
"""How long the hub may take to say that it is well."""

_READS = frozenset((b"GET", b"HEAD"))


class HubWatch:
    """Looks once a tick whether somebody waits for the hub.

    Args:
        base_url: The prefix of the routes that are the hub's.
        health: The path that the hub answers at once.
    """

    def __init__(self, edge: "Edge", tasks: TaskOwner, base_url: str, health: str) -> None:
        self._edge = edge
        self._tasks = tasks
        self._base_url = base_url
        self._question = (
            f"GET {health} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        ).encode("ascii")
        self._asking = False

    def look(self) -> None:
        """Ask the hub, if somebody waits for it and it is not being asked already."""
        if self._asking:
            return
        now = self._edge.time()
        waiting = [one for one in self._edge.exchanges if self._waits(one, now)]
        if waiting:
            self._asking = True
            self._tasks.start(self._ask(waiting), name="hub-watch")

    def _waits(self, exchange: "Exchange", now: float) -> bool:
        route = exchange.route
        if exchange.answered or route.access is not None or route.fence is not None:
            return False
        reads = exchange.head.method in _READS and not exchange.websocket
        patience = PATIENCE_SECONDS if reads else CHANGE_PATIENCE_SECONDS
        return (
            route.prefix == self._base_url
            and exchange.request_done
            and now - exchange.began > patience
        )

    async def _ask(self, waiting: list["Exchange"]) -> None:
        try:
            for pool in {exchange.pool for exchange in waiting}:
                if await self._is_well(pool):
                    continue
                log.warning("hub_hangs", target=str(pool.target))
                for exchange in waiting:
                    if exchange.pool is pool and not exchange.over and not exchange.answered:
                        exchange.route.failed(pool, "it hangs")
                        exchange.fail(TargetAwayError("the hub does not answer"))
        finally:
            self._asking = False

    async def _is_well(self, pool: Pool) -> bool:
        question = _Question()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                connection = await pool.connect()
                connection.conversation = question
                connection.transport.write(self._question)
                try:
                    return await question.answer
                finally:
                    connection.release(reusable=False)
        except BusyError:
            return True  # it is we who are not well
        except (TargetAwayError, WrongPeerError, TimeoutError):
            return False


class _Question:
    """A conversation of which only matters whether there is an answer."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def upstream_data(self, data: bytes) -> None:
        self._end(well=True)

    def upstream_lost(self, error: Exception | None) -> None:
        self._end(well=False)

    def upstream_writable(self, *, writable: bool) -> None:
        pass

    def _end(self, *, well: bool) -> None:
        if not self.answer.done():
            self.answer.set_result(well)

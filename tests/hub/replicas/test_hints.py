"""Hints between replicas: told together, and what may be lost of them is looked for."""

import asyncio
from typing import Any

from hub.replicas.conftest import another
from hub.world import World

from carrel_hub.context import MISSED, SOMETHING, Hub
from carrel_hub.db.models import Server
from carrel_hub.replicas.link import Link, LinkLostError
from carrel_hub.replicas.presence import join, leave, show
from carrel_hub.spawns.reconciler import Reconciler
from carrel_shared.tasks import TaskOwner


class Listener:
    """A replica that hears hints."""

    def __init__(self, world: World) -> None:
        self._heard: asyncio.Queue[tuple[str, ...]] = asyncio.Queue()
        self.link = Link(world.hub.settings.effective_database_url, self._heard.put_nowait)

    async def next(self) -> set[str]:
        return set(await asyncio.wait_for(self._heard.get(), 60))


async def test_hints_are_told_together_and_none_is_lost_on_the_way(world: World) -> None:
    tasks, listener = TaskOwner(), Listener(world)
    link = Link(world.hub.settings.effective_database_url, lambda _: None)
    try:
        await listener.link.beat("nobody")
        assert await listener.next() == {MISSED}  # whatever was told before it listened
        await link.beat("nobody")
        telling = tasks.start(link.keep_telling(), name="hints")
        link.tell(("0123456789ab",))
        link.tell((SOMETHING,))
        assert await listener.next() == {"0123456789ab", SOMETHING}
        link.tell(tuple(f"{number:012x}" for number in range(1000)))
        assert await listener.next() == {MISSED}  # too long for one message
        telling.cancel()
        await asyncio.wait([telling])
        link.tell(("ba9876543210",))
        await link.close()  # as when the process ends right after a request
        assert await listener.next() == {"ba9876543210"}
    finally:
        await tasks.close()
        await listener.link.close()
        await link.close()


class FailsOnce(Link):
    """A connection that is lost when it first passes a hint on."""

    def __init__(self, url: str) -> None:
        super().__init__(url, lambda _: None)
        self.failed = asyncio.Event()

    async def _call(self, method: str, *arguments: object) -> Any:
        if method == "execute" and not self.failed.is_set():
            self.failed.set()
            raise LinkLostError("gone")
        return await super()._call(method, *arguments)


async def test_of_hints_that_could_not_be_told_the_others_hear_with_the_next(world: World) -> None:
    tasks, listener = TaskOwner(), Listener(world)
    link = FailsOnce(world.hub.settings.effective_database_url)
    try:
        await listener.link.beat("nobody")
        assert await listener.next() == {MISSED}
        tasks.start(link.keep_telling(), name="hints")
        link.tell(("0123456789ab",))
        await asyncio.wait_for(link.failed.wait(), 60)
        link.tell(("ba9876543210",))
        assert await listener.next() == {MISSED, "ba9876543210"}
    finally:
        await tasks.close()
        await listener.link.close()
        await link.close()


async def _driven(world: World, hub: Hub, row: Server) -> None:
    with hub.wakeups.watch(row.id) as watch:
        async with asyncio.timeout(60):
            while (await world.row(row)).driver != hub.database.replica:
                await watch.wait(0.1)


async def test_servers_are_looked_at_at_once_when_hints_may_be_lost(world: World) -> None:
    async with another(world) as other:
        await world.report()
        await join(other)
        await show(other)
        await leave(world.hub)  # what it takes on from now on is another's to drive
        other.tasks.start(Reconciler(other).run(), name="reconciler")
        for name in ("alice", "bob"):  # the clock stands still: the first scan is the last one
            row = await world.start(name)
            other.wakeups.hear((MISSED,))
            await _driven(world, other, row)

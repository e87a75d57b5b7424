"""What runners share whose servers are processes below the keeper: all but the start."""

import asyncio
import contextlib
from collections.abc import Callable

from carrel_agent.cgroups.group import Group, GroupError
from carrel_agent.keeper.channel import ChannelClosedError, RefusedError
from carrel_agent.keeper.client import ProcessExit
from carrel_agent.runners.base import RunnerContext, RunnerUnavailableError, Watch
from carrel_agent.supervise.confinement import change_limits, confine, end_group, group_of
from carrel_agent.supervise.process_tree import Tree, kill_tree
from carrel_agent.supervise.record import Handle, Record
from carrel_agent.supervise.watch import ProcessWatch
from carrel_shared.wire.limits import Limits

EXIT_SECONDS = 2.0
"""How long the keeper's word about an exit is waited for."""


class ProcessRunner:
    """The keeper is its servers' parent and knows how they end; control groups hold them."""

    name = ""
    wants_session = True

    def __init__(self, context: RunnerContext) -> None:
        self._keeper = context.keeper
        self._groups = context.groups

    def refusal(self, limits: Limits) -> str | None:
        """Return why this host's control groups cannot enforce these limits."""
        return self._groups.refusal(limits)

    def group(self, server_id: str) -> Group | None:
        """Return the control group of a server, if this host has any."""
        group = self._groups.group(server_id)
        return group if group.directories else None

    async def prepare(self, record: Record) -> None:
        """Make its control group."""
        if (group := group_of(record)) is not None:
            try:
                await confine(group, record.limits)
            except GroupError as error:
                raise RunnerUnavailableError(str(error)) from error

    async def adopt(self, record: Record) -> None:
        """Have the keeper write down how it ends."""
        handle = _handle(record)
        await self._keeper.watch(handle.pid, handle.start_ticks)

    def watch(self, record: Record, on_end: Callable[[], None]) -> Watch:
        """Hold it by a pidfd."""
        return ProcessWatch(_handle(record).identity, on_end)

    async def end(self, record: Record, tree: Callable[[], Tree]) -> int:
        """Kill what is left of it, by its control group if it has one."""
        if (group := group_of(record)) is not None:
            return await end_group(group)
        return await kill_tree(tree)

    async def exit_of(self, record: Record) -> ProcessExit | None:
        """Ask the keeper."""
        handle = _handle(record)
        try:
            return await self._keeper.exit_of(
                handle.pid, handle.start_ticks, timeout_seconds=EXIT_SECONDS
            )
        except (ChannelClosedError, RefusedError):
            return None

    async def forget(self, record: Record) -> None:
        """Have the keeper drop its exit."""
        if record.handle is not None:
            with contextlib.suppress(ChannelClosedError, RefusedError):
                await self._keeper.forget_exit(record.handle.pid, record.handle.start_ticks)
        if (group := group_of(record)) is not None:
            await asyncio.to_thread(group.remove)

    async def change_limits(self, record: Record, limits: Limits) -> None:
        """Change them in its control group."""
        await change_limits(record, group_of(record), limits)

    async def warm(self) -> None:
        """Nothing to prepare."""

    def helper_pids(self) -> frozenset[int]:
        return frozenset()

    async def close(self) -> None:
        """Nothing to let go of."""


def _handle(record: Record) -> Handle:
    assert record.handle is not None  # noqa: S101 - asked for what runs only
    return record.handle

"""The fork runner: a zygote that has JupyterLab imported forks, and the child serves.

The zygote is started when it is first needed, by the keeper, and let go when it was not needed for
long. It costs as much memory as a server.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence

import structlog

from carrel_agent.keeper.channel import Channel, ChannelClosedError, RefusedError
from carrel_agent.runners.base import (
    Launch,
    Launched,
    LaunchUnclearError,
    RunnerContext,
    RunnerUnavailableError,
    sealed_spec,
)
from carrel_agent.runners.processes import ProcessRunner
from carrel_agent.supervise.process_tree import signal_process
from carrel_agent.zygote.freshness import STALE
from carrel_agent.zygote.trust import distrust, is_installed, trusted_uids
from carrel_shared.identity import ProcessIdentity, identify
from carrel_shared.tasks import TaskOwner

log = structlog.get_logger(__name__)

FORK_SECONDS = 60.0
"""How long a fork may take: the first waits until JupyterLab is imported."""
QUICK_DEATH_SECONDS = 10.0
RECYCLE_FORKS = 1000
RECYCLE_SECONDS = 24 * 3600.0
"""After so many forks, or so long, a new zygote takes the place of the old one."""
UNTRUSTED = "nothing is forked from an environment that others can change"
PAUSE_SECONDS = 30.0
"""A zygote that died young is not started again for so long; servers are executed meanwhile."""


class _StaleError(RunnerUnavailableError):
    """The zygote is of packages that have changed since."""


class ForkRunner(ProcessRunner):
    """Owns the connection to the zygote."""

    name = "fork"

    def __init__(self, context: RunnerContext) -> None:
        super().__init__(context)
        self._clock = context.clock
        self._python = context.python
        self._preload = context.preload
        self._preferred: tuple[str, ...] = ()
        self._considered: tuple[str, ...] = ()
        self._loaded: tuple[str, ...] = ()
        self._trusted = context.trusted_owners
        self._idle_seconds = context.zygote_idle_seconds
        self._channel: Channel | None = None
        self._pid = 0
        self._identity: ProcessIdentity | None = None
        self._started_at = 0.0
        self._not_before = 0.0
        self._used_at = 0.0
        self._in_use = 0
        self._forks = 0
        self._starting = asyncio.Lock()
        self._tasks = TaskOwner()

    async def launch(self, launch: Launch) -> Launched:
        """Have the zygote fork, a new one if packages have changed since it imported them."""
        try:
            return await self._fork(launch)
        except _StaleError:
            log.info("zygote_stale", pid=self._pid)
            return await self._fork(launch)

    async def _fork(self, launch: Launch) -> Launched:
        channel = await self._zygote()
        spec = sealed_spec(launch.spec)
        self._in_use += 1
        try:
            reply = await channel.request(
                {"op": "fork"}, (spec, launch.listener, launch.log), timeout_seconds=FORK_SECONDS
            )
        except RefusedError as error:
            if str(error) == STALE:
                await self._kill(channel)
                raise _StaleError(f"the zygote refused: {error}") from error
            raise RunnerUnavailableError(f"the zygote refused: {error}") from error
        except ChannelClosedError as error:
            await self._kill(channel)
            raise LaunchUnclearError(f"the zygote is gone: {error}") from error
        finally:
            self._in_use -= 1
            self._forks += 1
            self._used_at = self._clock.monotonic()
            os.close(spec)
        return Launched(int(reply.message["pid"]), int(reply.message["start_ticks"]))

    async def warm(self) -> None:
        """Start the zygote if there is none."""
        try:
            await self._zygote()
        except RunnerUnavailableError as error:
            log.warning("zygote_unavailable", reason=str(error))

    def prefer(self, modules: Sequence[str]) -> None:
        """Load these as well. A zygote that has not is replaced when nobody waits for it."""
        self._preferred = tuple(modules)
        idle = not self._in_use and not self._starting.locked()
        if self._channel is not None and self._considered != self._preferred and idle:
            self._considered = self._preferred
            self._tasks.start(self._load_anew(), name="zygote-anew")

    async def _load_anew(self) -> None:
        wanted = await asyncio.to_thread(self._wanted, self._python or sys.executable)
        if wanted != self._loaded:
            log.info("zygote_recycled", pid=self._pid, preload=list(wanted))
            self._drop()
            await self.warm()

    def helper_pids(self) -> frozenset[int]:
        return frozenset({self._pid}) if self._channel is not None else frozenset()

    async def close(self) -> None:
        """Let the zygote end."""
        self._drop()
        await self._tasks.close()

    async def _zygote(self) -> Channel:
        async with self._starting:
            self._used_at = self._clock.monotonic()
            if self._channel is not None and not self._channel.closed and not self._is_worn():
                return self._channel
            if self._clock.monotonic() < self._not_before:
                raise RunnerUnavailableError("the zygote died as soon as it was started")
            python = self._python or sys.executable
            if reason := await asyncio.to_thread(distrust, python, self._trusted):
                raise RunnerUnavailableError(f"{UNTRUSTED}: {reason}")
            self._considered = self._preferred
            self._loaded = await asyncio.to_thread(self._wanted, python)
            try:
                self._pid, end = await self._keeper.start_zygote(
                    self._python, self._loaded, sorted(trusted_uids(self._trusted))
                )
            except (RefusedError, ChannelClosedError) as error:
                raise RunnerUnavailableError(f"the zygote could not be started: {error}") from error
            self._identity = identify(self._pid)
            self._started_at = self._clock.monotonic()
            self._forks = 0
            self._channel = Channel(end, on_close=self._on_death)
            self._tasks.start(self._let_go_when_idle(self._channel), name="zygote-idle")
            log.info("zygote_started", pid=self._pid)
            return self._channel

    def _wanted(self, python: str) -> tuple[str, ...]:
        """Return what is to be loaded. The hub names nothing but what is installed here."""
        theirs = [name for name in self._preferred if is_installed(python, name)]
        return tuple(dict.fromkeys([*self._preload, *theirs]))

    def _is_worn(self) -> bool:
        """Whether a new one is due: its children share addresses, hash seed and stack canary."""
        age = self._clock.monotonic() - self._started_at
        worn = self._forks >= RECYCLE_FORKS or age >= RECYCLE_SECONDS
        if worn and not self._in_use:
            log.info("zygote_recycled", pid=self._pid, forks=self._forks)
            self._drop()
            return True
        return False

    def _on_death(self) -> None:
        lived = self._clock.monotonic() - self._started_at
        log.warning("zygote_died", pid=self._pid, after_seconds=round(lived, 1))
        if lived < QUICK_DEATH_SECONDS:
            self._not_before = self._clock.monotonic() + PAUSE_SECONDS
        self._channel = None

    async def _kill(self, channel: Channel) -> None:
        """See the zygote dead: it must not fork once we look for what it may have started."""
        identity = self._identity
        channel.close()
        if self._channel is channel:
            self._channel = None
        while identity is not None and identity.is_alive():
            signal_process(identity.pid, identity.start_ticks, signal.SIGKILL)
            await asyncio.sleep(0.01)

    def _drop(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    async def _let_go_when_idle(self, channel: Channel) -> None:
        while not channel.closed:
            unused = self._clock.monotonic() - self._used_at
            if not self._in_use and unused >= self._idle_seconds:
                log.info("zygote_let_go", pid=self._pid, unused_seconds=round(unused))
                self._drop()
                return
            await asyncio.sleep(max(0.05, self._idle_seconds - unused))

"""One server from the intent to start it to the record of its end.

One task drives it. The record is the truth: each step is journalled before the next is taken, and
an agent that starts goes on from whatever the record says.
"""

import asyncio
import contextlib
import operator
from dataclasses import replace
from datetime import UTC, datetime

import structlog

from carrel_agent.errors import LimitUnenforceableError
from carrel_agent.keeper.channel import ChannelClosedError, RefusedError
from carrel_agent.process.launch_spec import LaunchSpec
from carrel_agent.runners.base import (
    Launch,
    Launched,
    LaunchUnclearError,
    Runner,
    RunnerUnavailableError,
    Watch,
)
from carrel_agent.supervise.confinement import (
    events_after,
    group_of,
    killed_for_memory,
    usage_of,
)
from carrel_agent.supervise.ending import end_process
from carrel_agent.supervise.evidence import gather
from carrel_agent.supervise.explain import Ending, explain
from carrel_agent.supervise.journal import JournalError
from carrel_agent.supervise.launching import LaunchError
from carrel_agent.supervise.readiness import Listening, is_ready, probes
from carrel_agent.supervise.record import Handle, Record, Stop
from carrel_agent.supervise.search import Found, find_until_sure
from carrel_agent.supervise.starting import fitted, launch_in_session, prepared
from carrel_agent.supervise.states import report_of
from carrel_agent.supervise.surroundings import Surroundings
from carrel_agent.supervise.watch import ProcessGoneError, real_uid
from carrel_shared.failpoints import failpoint
from carrel_shared.identity import boot_id
from carrel_shared.wire.limits import Limits, ServerUsage
from carrel_shared.wire.servers import ExitReport, ServerReport

log = structlog.get_logger(__name__)

DROP_SECONDS = 5.0
"""How long a new process may take to become its user's."""

READY_SAVE_SECONDS = 0.2
"""When it is written down that a server is ready: not while whoever waits for it is told."""

ADOPTED_SECONDS = 5.0
"""How long a server that an earlier agent started has at least to show that it is ready."""


class NotIntendedError(Exception):
    """The intent to start a server could not be written down, so it must not be begun."""


class Server:
    """Drives one record. `start`, `search` or `follow` is run once, as a task."""

    def __init__(self, record: Record, around: Surroundings) -> None:
        self.record = record
        self.unresolved = False
        self.progress = ""
        self._around = around
        self._to_be_stopped = record.stop is not None
        self._ending = False
        self._is_adopted = record.handle is not None
        self._told: tuple[tuple[Record, str, bool], ServerReport] | None = None
        self._last_status: int | None = None
        self._wake = asyncio.Event()
        self._saving = asyncio.Lock()
        self._settled = asyncio.Event()
        self._intended: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting = 0

    @property
    def report(self) -> ServerReport:
        """What the hub is told. It is the same object until something is new."""
        told, known = self._told, (self.record, self.progress, self.unresolved)
        if told is None or not all(map(operator.is_, told[0], known)):
            report = report_of(self.record, progress=self.progress, unresolved=self.unresolved)
            told = self._told = (known, report)
        return told[1]

    @property
    def _runner(self) -> Runner:
        return self._around.runners[self.record.runner]

    @property
    def ended(self) -> bool:
        return self.record.exit is not None

    async def ask_to_stop(self, stop: Stop) -> None:
        """Have the server ended. The first request counts."""
        if self.record.stop is None and self.record.exit is None and not self._ending:
            log.info("server_stop_requested", **self._names(), reason=stop.reason)
            await self._change(stop=stop)
            # Only now: an end that comes before its reason is on disk would look like a failure.
            self._to_be_stopped = True
            self._wake.set()

    async def settle(self, seconds: float) -> None:
        """Return when it is ready or has ended, or after so long.

        Whoever waits will say so to the hub: while somebody does, readiness is not reported at
        once besides.
        """
        if self.record.ready_at is not None or self.ended:
            return
        self._waiting += 1
        try:
            async with asyncio.timeout(seconds):
                await self._settled.wait()
        except TimeoutError:
            pass
        finally:
            self._waiting -= 1

    # -- the ways a task begins

    async def take_up(self) -> None:
        """Go on from what the record says, whatever broke before."""
        if self.record.handle is None:
            await self.search()
        else:
            await self._runner.adopt(self.record)
            await self.follow()

    async def start(self, spec: LaunchSpec, runners: list[Runner]) -> None:
        """Launch the server by the first runner that can, and follow it to its end.

        It is made ready for meanwhile, but no process is begun before `intend` has returned.
        """
        try:
            if self._to_be_stopped:
                raise LaunchError("it was stopped before it was started")
            launched = await self._launch(spec, runners)
        except (LaunchError, NotIntendedError) as error:
            if await self._is_intended():
                await self._finish(Ending(failure=f"It could not be started: {error}."))
            else:
                await self._clear_away()
            await self._runner.forget(self.record)
            return
        failpoint("agent.start.launched")
        self._hold(launched)
        # Until it is written down the server is found by its socket: nobody need wait for that.
        async with asyncio.TaskGroup() as group:
            group.create_task(self._journal_handle())
            await self._runner.adopt(self.record)
            await self.follow()

    async def search(self) -> None:
        """Find out what became of a start that an earlier agent decided, and go on from there."""
        found = await self._find(agent_holds_it=False)
        if found is None:
            await self._finish(
                Ending(failure="The agent was interrupted before it was started. Start it again.")
            )
            return
        log.info("server_found", **self._names(), pid=found.identity.pid)
        self._hold(Launched(found.identity.pid, found.identity.start_ticks))
        await self._journal(None)
        await self._runner.adopt(self.record)
        await self.follow()

    async def follow(self) -> None:
        """Watch the process until it ends, and record how."""
        self._say("Waiting for the server to answer")
        try:
            watch = await self._watch()
        except ProcessGoneError:
            await self._after_end(witnessed=False)
            return
        try:
            if await self._becomes_its_users(watch):
                await self._accompany(watch)
                if not watch.ended.is_set():
                    await self._end(watch)
            await watch.ended.wait()
        finally:
            watch.close()
        await self._after_end(witnessed=True)

    async def _watch(self) -> Watch:
        while True:
            try:
                return self._runner.watch(self.record, self._wake.set)
            except OSError as error:
                log.error("server_not_watched", **self._names(), reason=str(error))
                await asyncio.sleep(1)

    # -- starting

    async def _launch(self, spec: LaunchSpec, runners: list[Runner]) -> Launched:
        self._say("Preparing")
        async with prepared(self._around, self.record, spec) as launch:
            return await self._try_runners(runners, launch)

    async def _try_runners(self, runners: list[Runner], launch: Launch) -> Launched:
        reasons = []
        for runner in runners:
            self._say("Starting JupyterLab" if launch.spec.argv is None else "Starting the server")
            try:
                fitting, group = fitted(runner, self.record, launch)
                if (self.record.runner, self.record.group) != (runner.name, group):
                    await self._change(at_once=False, runner=runner.name, group=group)
                await runner.prepare(self.record)
                return await launch_in_session(
                    self._around, self.record, runner, fitting, self._wait_for_intent
                )
            except (RunnerUnavailableError, LimitUnenforceableError) as error:
                reasons.append(str(error))
            except (LaunchUnclearError, OSError) as error:
                reasons.append(str(error))
                found = await self._find(agent_holds_it=True)
                if found is not None:
                    return Launched(found.identity.pid, found.identity.start_ticks)
            log.warning("runner_failed", **self._names(), runner=runner.name, reason=reasons[-1])
        raise LaunchError("; ".join(reasons))

    async def _wait_for_intent(self) -> None:
        if not await self._is_intended():
            raise NotIntendedError

    async def _is_intended(self) -> bool:
        return await asyncio.shield(self._intended)

    def _hold(self, launched: Launched) -> None:
        """Take note of which process it is. To be journalled, and the runner to be told."""
        log.info("server_started", **self._names(), pid=launched.pid, runner=self.record.runner)
        handle = Handle(pid=launched.pid, start_ticks=launched.start_ticks, boot_id=boot_id())
        self.record = self.record.model_copy(
            update={
                "handle": handle,
                "started_at": self._around.clock.now(),
                "group": launched.group or self.record.group,
            }
        )
        self._around.changed(False)

    async def _journal_handle(self) -> None:
        await self._journal(None)
        failpoint("agent.start.journalled")

    async def _find(self, *, agent_holds_it: bool) -> Found | None:
        """Return the process that a start of unknown outcome led to, or None if there is none."""

        def cannot_say() -> None:
            log.warning("server_unresolved", **self._names())
            self.unresolved = True
            self._around.changed(True)

        found = await find_until_sure(
            self._around.sockets.path(self.record.server_id),
            since_ticks=self.record.intent_ticks,
            agent_holds_it=agent_holds_it,
            cannot_say=cannot_say,
        )
        if self.unresolved:
            self.unresolved = False
            self._around.changed(True)
        return found

    # -- living

    async def _becomes_its_users(self, watch: Watch) -> bool:
        """Wait until the process has dropped to its account; return whether it did.

        A process that is somebody else's is not signalled, whatever the record says of it.
        """
        begun = self._around.clock.monotonic()
        pid = watch.identity.pid
        while not watch.ended.is_set() and not self._is_its_own(pid, uid := real_uid(pid)):
            late = self._around.clock.monotonic() - begun > DROP_SECONDS
            if late and not self.unresolved:
                log.error("server_of_another_account", **self._names(), pid=pid, uid=uid)
                self.unresolved = True
                self._around.changed(True)
            await watch.wait_ended(0.5 if late else 0.002)
        self.unresolved = False
        return not watch.ended.is_set()

    def _is_its_own(self, pid: int, uid: int | None) -> bool:
        """Whether a process is its account's, or one that this account may become.

        By a user namespace most accounts have thousands of others (subuid(5)), and by a program
        with the right for it, more. What the kernel has in the server's group came of the server.
        """
        if uid == self.record.uid:
            return True
        has_dropped = bool(uid) or self.record.ready_at is not None
        group = group_of(self.record)
        return has_dropped and group is not None and pid in group.pids()

    async def _accompany(self, watch: Watch) -> None:
        """Return when the server has ended, is to be stopped, or has failed to become ready."""
        clock = self._around.clock
        if self.record.ready_at is None:
            least = ADOPTED_SECONDS if self._is_adopted else 0.0
            left = max(least, (self.record.deadline_at - clock.now()).total_seconds())
        else:
            left = None
        async with asyncio.TaskGroup() as group:
            probing = group.create_task(self._probe())
            deadline = None if left is None else clock.monotonic() + left
            while not watch.ended.is_set() and not self._to_be_stopped:
                if self.record.never_ready:
                    break
                if self.record.ready_at is not None:
                    deadline = None
                if deadline is not None and clock.monotonic() >= deadline:
                    log.warning("server_never_ready", **self._names())
                    await self._change(never_ready=True)
                    break
                self._wake.clear()
                if watch.ended.is_set() or self._to_be_stopped:
                    break
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(
                        None if deadline is None else deadline - clock.monotonic()
                    ):
                        await self._wake.wait()
            probing.cancel()

    async def _probe(self) -> None:
        if self.record.ready_at is not None:
            return
        record = self.record
        if record.listens:
            await self._until_it_answers()
        now = self._around.clock.now()
        seconds = (now - record.requested_at).total_seconds()
        log.info("server_ready", **self._names(), after_seconds=round(seconds, 3))
        self.progress = "Ready"
        self.record = self.record.model_copy(update={"ready_at": now})
        self._settled.set()
        self._around.changed(not self._waiting)
        self._wake.set()
        await asyncio.sleep(READY_SAVE_SECONDS)
        await self._journal(None)  # an agent that never reads this asks the server again

    async def _until_it_answers(self) -> None:
        record = self.record
        where = Listening(record.socket, record.port, record.uid)
        async for status in probes(where, record.base_url):
            if is_ready(status, any_answer=record.any_answer):
                return
            self._last_status = status

    # -- limits

    async def change_limits(self, limits: Limits) -> None:
        """Put other limits in force.

        Raises:
            AgentError: If one cannot be; the message says why.
        """
        await self._runner.change_limits(self.record, limits)
        log.info("limits_changed", **self._names(), limits=limits.model_dump(exclude_none=True))
        await self._change(limits=limits)

    def usage(self) -> ServerUsage:
        """Return what it uses now."""
        return usage_of(self.record, group_of(self.record))

    @property
    def is_limited(self) -> bool:
        """Whether it may meet a limit that the kernel counts."""
        limits = self.record.limits
        return limits.memory_bytes is not None or limits.processes is not None

    async def note_limits(self) -> None:
        """Have the hub told if it met a limit since this was last asked."""
        if (group := group_of(self.record)) is None or self.record.handle is None or self.ended:
            return
        events = events_after(self.record, group.counts(), self._around.clock.now())
        if events != self.record.limit_events and not self.ended:
            for event in events:
                log.warning("limit_met", **self._names(), kind=event.kind, count=event.count)
            await self._change(limit_events=events)

    # -- ending

    async def _end(self, watch: Watch) -> None:
        stop = self.record.stop
        interrupt, terminate = (
            (stop.interrupt_seconds, stop.terminate_seconds) if stop else self._around.stop_times
        )
        self._say("Stopping")
        await end_process(watch, interrupt_seconds=interrupt, terminate_seconds=terminate)

    async def _after_end(self, *, witnessed: bool) -> None:
        await self.note_limits()  # the kernel's counters go away with the group
        try:
            killed = await self._runner.end(
                self.record, lambda: self._around.tree(self.record, witnessed)
            )
        except OSError as error:
            log.error("server_remains_unseen", **self._names(), reason=str(error))
        else:
            if killed:
                log.info("server_remains_killed", **self._names(), count=killed)
        exit_ = await self._runner.exit_of(self.record)
        if exit_ is None:
            await self._finish(Ending())
        else:
            at = datetime.fromtimestamp(exit_.at, UTC)
            await self._finish(Ending(code=exit_.code, signal=exit_.signal), at=at)
        await self._runner.forget(self.record)

    async def _finish(self, ending: Ending, *, at: datetime | None = None) -> None:
        """Record the end, then clean up behind the server."""
        around, record = self._around, self.record
        evidence = await gather(record, around.logs, last_status=self._last_status)
        out_of_memory = killed_for_memory(record.limit_events, around.clock.now())
        ending = replace(ending, out_of_memory=out_of_memory)
        told = explain(record, ending, evidence)
        exit_ = ExitReport(
            code=ending.code,
            signal=ending.signal,
            cause=told.cause,
            summary=told.summary,
            advice=told.advice,
            scratch_home=told.scratch_home,
            command=record.command,
            log_tail=evidence.tail,
            at=at or around.clock.now(),
        )
        log.info(
            "server_ended",
            **self._names(),
            cause=told.cause,
            code=ending.code,
            signal=ending.signal,
        )
        self._ending = True
        ended = self.record.model_copy(update={"exit": exit_})
        await self._journal(ended)
        failpoint("agent.exit.journalled")
        if record.scratch:
            around.scratch.note_end(record.server_id)
        await self._clear_away()
        # Only now may it be started again: nothing of this start touches the next one's things.
        self.progress = ""
        self.record = ended
        self._settled.set()
        around.changed(True)

    async def _clear_away(self) -> None:
        """Take away its socket and the way its output goes."""
        around, server_id = self._around, self.record.server_id
        await asyncio.to_thread(around.sockets.remove, server_id)
        with contextlib.suppress(ChannelClosedError, RefusedError):
            await around.keeper.close_log(server_id)

    async def record_reboot(self) -> None:
        """The machine was started anew: nothing of this server is left."""
        await self._finish(Ending(rebooted=True))

    async def forget(self) -> None:
        """Drop all but the generation, and what there is little of."""
        await asyncio.to_thread(self._around.logs.remove, self.record.server_id)
        exit_ = self.record.exit
        briefly = None if exit_ is None else exit_.model_copy(update={"log_tail": []})
        await self._change(forgotten=True, exit=briefly)

    # -- the record

    async def intend(self) -> None:
        """Make the intent to start it durable: from then on a process may be begun.

        Raises:
            JournalError: If that fails; it is not started then.
        """
        try:
            async with self._saving:
                await self._around.journal.save(self.record)
        except BaseException:
            self._intended.set_result(False)
            raise
        self._intended.set_result(True)

    async def _change(self, *, at_once: bool = True, **fields: object) -> None:
        """Change the record, make it durable, and have the hub told."""
        self.record = self.record.model_copy(update=fields)
        await self._journal(None)
        self._around.changed(at_once)

    async def _journal(self, record: Record | None) -> None:
        """Make a record durable if that is possible: this one, or the one as it stands."""
        try:
            async with self._saving:
                if record is None and self._ending and not self.ended:
                    return  # what came in between is not to take the place of its end
                await self._around.journal.save(record or self.record)
        except JournalError as error:
            # The server runs, or has ended: not being able to write that down changes neither.
            log.error("journal_not_written", **self._names(), reason=str(error))

    def _say(self, progress: str) -> None:
        if self.record.ready_at is None or self.record.stop is not None:
            self.progress = progress
            self._around.changed(self.record.stop is not None)

    def _names(self) -> dict[str, object]:
        return {"server_id": self.record.server_id, "generation": self.record.generation}

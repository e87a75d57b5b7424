"""All servers of this host: what may be asked about them, and what an agent that starts finds."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence

import structlog

from carrel_agent.cgroups.host import ControlGroups
from carrel_agent.errors import (
    GenerationStaleError,
    InvalidRequestError,
    ServerRunningError,
    UnavailableError,
    UnknownServerError,
)
from carrel_agent.keeper.client import KeeperClient
from carrel_agent.runners.base import Runner
from carrel_agent.supervise.accounts import SHARED, Accounts, check_uid
from carrel_agent.supervise.admission import choose_runners, new_record, refuse_unenforceable
from carrel_agent.supervise.driving import drive
from carrel_agent.supervise.follow import follow
from carrel_agent.supervise.journal import Journal, JournalError, is_long_forgotten
from carrel_agent.supervise.launching import LaunchError, launch_spec_of
from carrel_agent.supervise.logs import ServerLogs
from carrel_agent.supervise.ports import NoPortError, choose_port
from carrel_agent.supervise.process_tree import Tree
from carrel_agent.supervise.record import Record, Stop
from carrel_agent.supervise.scratch import SWEEP_SECONDS, ScratchHomes
from carrel_agent.supervise.server import Server
from carrel_agent.supervise.sockets import SocketDirectories
from carrel_agent.supervise.states import (
    Adoption,
    StartVerdict,
    StopVerdict,
    judge_adoption,
    judge_start,
    judge_stop,
)
from carrel_agent.supervise.surroundings import Surroundings
from carrel_shared.clock import Clock
from carrel_shared.failpoints import failpoint
from carrel_shared.identity import boot_id
from carrel_shared.tasks import TaskOwner
from carrel_shared.wire.limits import LimitsChange, ServerUsage
from carrel_shared.wire.servers import ServerReport, ServerSpec, StopRequest

log = structlog.get_logger(__name__)

LIMITS_SECONDS = 5.0
"""How often the kernel's counters of limits are read."""


FORGOTTEN_SECONDS = 3600.0
"""How often what was forgotten long ago is dropped."""


class Supervisor:
    """Owns the servers and the tasks that drive them.

    Args:
        keeper: Parent of every server.
        runners: By name. `default_runners` are tried where nobody chose one.
        python: Whose JupyterLab runs where a spec names no command.
        lang: Servers' locale.
        accounts: Which account runs whose servers.
        groups: Makes control groups.
        pam_service: Whose sessions servers get; empty for none.
        scratch: Homes for servers whose users' own cannot be used.
        stop_times: Seconds for SIGINT and for SIGTERM where nobody asked for the stop.
    """

    def __init__(
        self,
        *,
        keeper: KeeperClient,
        journal: Journal,
        sockets: SocketDirectories,
        logs: ServerLogs,
        runners: dict[str, Runner],
        default_runners: Sequence[str],
        clock: Clock,
        python: str,
        lang: str,
        accounts: Accounts,
        groups: ControlGroups,
        scratch: ScratchHomes,
        pam_service: str = "",
        stop_times: tuple[float, float],
    ) -> None:
        self._keeper = keeper
        self._journal = journal
        self._sockets = sockets
        self._logs = logs
        self._runners = runners
        self._default_runners = default_runners
        self._clock = clock
        self._python = python
        self._lang = lang
        self._accounts = accounts
        self._groups = groups
        self._scratch = scratch
        self._servers: dict[str, Server] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._tasks = TaskOwner()
        self._listeners: list[Callable[[bool], None]] = []
        self._around = Surroundings(
            keeper=keeper,
            journal=journal,
            sockets=sockets,
            logs=logs,
            runners=runners,
            clock=clock,
            stop_times=stop_times,
            changed=self._changed,
            groups=groups,
            pam_service=pam_service,
            scratch=scratch,
            tree=self._tree,
        )

    def on_change(self, listener: Callable[[bool], None]) -> None:
        """Have `listener` called after each change, with whether the hub should hear at once."""
        self._listeners.append(listener)

    def _changed(self, at_once: bool) -> None:
        for listener in self._listeners:
            listener(at_once)

    # -- beginning and end of the agent

    async def recover(self) -> None:
        """Take up what an earlier agent left: adopt what lives, record what has ended."""
        await self._keeper.load_exits()
        here = boot_id()
        for record in self._journal.load(self._clock.now()):
            server = self._servers[record.server_id] = Server(record, self._around)
            if record.exit is None and record.runner not in self._runners:
                log.error("runner_missing", server_id=record.server_id, runner=record.runner)
                server.unresolved = True  # unknown is not dead
                continue
            match judge_adoption(record, here):
                case Adoption.KEEP:
                    continue
                case Adoption.REBOOTED:
                    server.unresolved = True
                    self._drive(server, server.record_reboot())  # its home may not answer soon
                case Adoption.SEARCH:
                    server.unresolved = True
                    self._drive(server, server.search())
                case Adoption.FOLLOW:
                    await self._runners[record.runner].adopt(record)
                    self._drive(server, server.follow())
        await self._tidy()
        self._tasks.start(self._watch_limits(), name="limits")
        self._tasks.start(self._sweep_scratch_homes(), name="scratch")
        self._tasks.start(self._drop_long_forgotten(), name="forgotten")
        living = sum(not server.ended for server in self._servers.values())
        log.info("agent_recovered", servers_count=len(self._servers), living_count=living)

    def _drive(self, server: Server, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        return self._tasks.start(drive(server, work), name=f"server-{server.record.server_id}")

    async def _tidy(self) -> None:
        """Drop exits, FIFOs and socket directories that no living server needs.

        A directory without a record is left: something may still live behind its socket, and the
        next start of that server looks.
        """
        living = {i for i, server in self._servers.items() if not server.ended}
        wanted = {
            (h.pid, h.start_ticks)
            for server in self._servers.values()
            if not server.ended and (h := server.record.handle) is not None
        }
        for exit_ in self._keeper.unclaimed():
            if (exit_.pid, exit_.start_ticks) not in wanted:
                await self._keeper.forget_exit(exit_.pid, exit_.start_ticks)
        for server_id in self._logs.open_fifos() & set(self._servers) - living:
            await self._keeper.close_log(server_id)
        for server_id in self._groups.left_over() & set(self._servers) - living:
            await asyncio.to_thread(self._groups.group(server_id).remove)
        for server_id in set(self._sockets.ids()) & set(self._servers) - living:
            self._sockets.remove(server_id)

    async def close(self) -> None:
        """Stop supervising. Servers go on."""
        await self._tasks.close()
        for runner in self._runners.values():
            await runner.close()
        self._groups.close()

    # -- what the hub can ask for

    def reports(self) -> list[ServerReport]:
        """Return what is known of every server the hub has not had the end of."""
        return [s.report for s in self._servers.values() if not s.record.forgotten]

    def prefixes(self) -> dict[str, str]:
        """Return the path of every server that has not ended, by its id."""
        return {i: one.record.base_url for i, one in self._servers.items() if not one.ended}

    def report(self, server_id: str) -> ServerReport:
        """Return what is known of one server.

        Raises:
            UnknownServerError: If there is none.
        """
        return self._known(server_id).report

    async def start(self, spec: ServerSpec, *, wait_seconds: float = 0.0) -> ServerReport:
        """Start a generation of a server, or return its report if that was done before.

        Returns once the intent is durable; the start itself follows.

        Args:
            wait_seconds: How long it is waited for besides until it is ready or has ended.

        Raises:
            AgentError: If it is not started; nothing has happened then.
        """
        server = await self._started(spec)
        if wait_seconds:
            await server.settle(wait_seconds)
        return server.report

    async def _started(self, spec: ServerSpec) -> Server:
        async with self._lock(spec.server_id):
            known = self._servers.get(spec.server_id)
            match judge_start(known.record if known else None, spec.generation):
                case StartVerdict.SAME if known is not None:
                    return known
                case StartVerdict.STALE:
                    raise GenerationStaleError(
                        f"server {spec.server_id}: generation {spec.generation} is not newer than"
                        " what this agent has seen"
                    )
                case StartVerdict.RUNNING:
                    raise ServerRunningError(
                        f"server {spec.server_id}: an older generation still lives; stop it first"
                    )
                case _:
                    return await self._start_new(spec)

    async def _start_new(self, spec: ServerSpec) -> Server:
        runners = choose_runners(spec, self._runners, self._default_runners)
        refuse_unenforceable(runners[0], spec.limits)
        account = await self._accounts.find(spec)
        check_uid(account, spec.uid)
        group = runners[0].group(spec.server_id)
        wanted, at_home = spec, account
        try:
            if spec.scratch_home:
                wanted, at_home = await asyncio.to_thread(self._scratch.move, spec, account)
            port = self._port_of(spec)
            launch_spec = launch_spec_of(
                wanted, at_home, python=self._python, lang=self._lang, port=port, group=group
            )
        except (LaunchError, NoPortError) as error:
            raise InvalidRequestError(str(error)) from error
        record = new_record(
            spec,
            account,
            launch_spec,
            runner=runners[0],
            group=group,
            socket=str(self._sockets.path(spec.server_id)),
            port=port,
            own_account=self._accounts.reported != SHARED,
            scratch=at_home.home if spec.scratch_home else "",
            now=self._clock.now(),
        )
        server = Server(record, self._around)
        starting = self._drive(server, server.start(launch_spec, runners))
        try:
            await server.intend()
        except JournalError as error:
            await asyncio.wait([starting])
            raise UnavailableError(f"{error}; nothing is started without it") from error
        failpoint("agent.start.intent")
        self._servers[spec.server_id] = server
        self._changed(False)  # whoever asked is answered by the same
        return server

    def _port_of(self, spec: ServerSpec) -> int:
        if spec.listen != "port":
            return 0
        return spec.port or choose_port(self._ports_in_use())

    def _ports_in_use(self) -> set[int]:
        return {s.record.port for s in self._servers.values() if not s.ended}

    async def stop(self, server_id: str, request: StopRequest) -> tuple[ServerReport, bool]:
        """Have a generation of a server ended; return its report and whether it had ended already.

        Raises:
            UnknownServerError: If this generation was never started here, or is forgotten.
            GenerationStaleError: If a newer one is known.
        """
        server = self._servers.get(server_id)
        match judge_stop(server.record if server else None, request.generation):
            case StopVerdict.STOP if server is not None:
                await server.ask_to_stop(
                    Stop(
                        reason=request.reason,
                        interrupt_seconds=request.interrupt_seconds,
                        terminate_seconds=request.terminate_seconds,
                        at=self._clock.now(),
                    )
                )
                return server.report, False
            case StopVerdict.ENDED if server is not None:
                return server.report, True
            case StopVerdict.STALE:
                raise GenerationStaleError(
                    f"server {server_id}: a newer generation than {request.generation} was started"
                )
            case _:
                raise UnknownServerError(
                    f"this agent knows no generation {request.generation} of server {server_id}"
                )

    async def change_limits(self, server_id: str, change: LimitsChange) -> ServerUsage:
        """Put other limits in force on a running server; return its use and limits then.

        Raises:
            UnknownServerError: If this generation does not run here.
            GenerationStaleError: If a newer one is known.
            AgentError: If a limit cannot be put in force.
        """
        async with self._lock(server_id):
            server = self._known(server_id)
            if change.generation < server.record.generation:
                raise GenerationStaleError(f"server {server_id}: a newer generation was started")
            if change.generation > server.record.generation or server.ended:
                raise UnknownServerError(f"server {server_id} does not run here")
            refuse_unenforceable(self._runners[server.record.runner], change.limits)
            await server.change_limits(change.limits)
            return server.usage()

    def usage(self, server_id: str) -> ServerUsage:
        """Return what a server uses now.

        Raises:
            UnknownServerError: If it does not run here.
        """
        server = self._known(server_id)
        if server.ended:
            raise UnknownServerError(f"server {server_id} does not run here")
        return server.usage()

    async def _watch_limits(self) -> None:
        """See that the hub hears of limits that were met while servers go on."""
        while True:
            await asyncio.sleep(LIMITS_SECONDS)
            for server in [s for s in self._servers.values() if s.is_limited]:
                try:
                    await server.note_limits()
                except OSError as error:
                    log.error("limits_not_read", reason=str(error))

    async def _sweep_scratch_homes(self) -> None:
        await asyncio.to_thread(self._scratch.prepare)
        while True:
            living = {i for i, server in self._servers.items() if not server.ended}
            await asyncio.to_thread(self._scratch.sweep, living)
            await asyncio.sleep(SWEEP_SECONDS)

    async def _drop_long_forgotten(self) -> None:
        """Keep memory, and the journal, from growing with every server there ever was."""
        while True:
            await asyncio.sleep(FORGOTTEN_SECONDS)
            self.drop_long_forgotten()

    def drop_long_forgotten(self) -> None:
        """Drop what is left of servers that nobody has spoken of for long."""
        now = self._clock.now()
        for server_id, server in list(self._servers.items()):
            lock = self._locks.get(server_id)
            if is_long_forgotten(server.record, now) and not (lock and lock.locked()):
                self._journal.drop(server.record)
                del self._servers[server_id]
                self._locks.pop(server_id, None)

    async def forget(self, server_id: str, generation: int) -> None:
        """Drop what is known of an ended server.

        Raises:
            UnknownServerError: If there is nothing to forget.
            GenerationStaleError: If a newer generation is known.
            ServerRunningError: If it lives.
        """
        async with self._lock(server_id):
            server = self._known(server_id)
            if generation < server.record.generation:
                raise GenerationStaleError(f"server {server_id}: a newer generation was started")
            if not server.ended:
                raise ServerRunningError(f"server {server_id} still lives; stop it first")
            await server.forget()

    async def forget_reported(
        self, reported: Iterable[ServerReport], forget: Iterable[str]
    ) -> None:
        """Drop the ended servers whose report the hub has stored."""
        generations = {r.server_id: r.generation for r in reported if r.exit is not None}
        for server_id in forget:
            async with self._lock(server_id):
                server = self._servers.get(server_id)
                if (
                    server is not None
                    and server.ended
                    and not server.record.forgotten
                    and generations.get(server_id) == server.record.generation
                ):
                    await server.forget()

    async def log_tail(self, server_id: str, lines: int) -> list[str]:
        """Return the last lines a server printed.

        Raises:
            UnknownServerError: If there is none.
        """
        self._known(server_id)
        return await asyncio.to_thread(self._logs.tail, server_id, lines)

    def follow_log(self, server_id: str, lines: int) -> AsyncIterator[bytes]:
        """Yield the last lines a server printed, and more until this start of it has ended.

        Raises:
            UnknownServerError: If there is none.
        """
        server = self._known(server_id)
        return follow(self._logs, server_id, lines, ended=lambda: server.ended)

    def prefer(self, modules: Sequence[str]) -> None:
        """Hear what the hub's profiles would have loaded beforehand."""
        for runner in self._runners.values():
            if (prefer := getattr(runner, "prefer", None)) is not None:  # most load nothing
                prefer(modules)

    def warm(self) -> None:
        """Get ready for a start that is likely to come."""
        for name in self._default_runners:
            self._tasks.start(self._runners[name].warm(), name=f"warm-{name}")

    def _lock(self, server_id: str) -> asyncio.Lock:
        """Return what keeps a start and a forgetting of one server apart."""
        return self._locks.setdefault(server_id, asyncio.Lock())

    def _known(self, server_id: str) -> Server:
        server = self._servers.get(server_id)
        if server is None or server.record.forgotten:
            raise UnknownServerError(f"this agent knows no server {server_id}")
        return server

    # -- whose processes are whose

    def _tree(self, record: Record, witnessed: bool) -> Tree:
        assert record.handle is not None  # noqa: S101 - only what ran leaves anything
        others = [
            s.record
            for s in self._servers.values()
            if s.record.server_id != record.server_id and not s.ended
        ]
        spared = {os.getpid(), os.getppid()}
        spared |= {o.handle.pid for o in others if o.handle is not None}
        for runner in self._runners.values():
            spared |= runner.helper_pids()
        alone = all(o.uid != record.uid for o in others)
        return Tree(
            server_id=record.server_id,
            pid=record.handle.pid,
            start_ticks=record.handle.start_ticks,
            uid=record.uid,
            session=witnessed,
            keeper=os.getppid() if alone else 0,
            spared=frozenset(spared),
        )

"""What each step of a server does: one call to an agent, or one change of the row."""

import structlog

from carrel_hub.context import Hub
from carrel_hub.db.models import Server, User
from carrel_hub.errors import AgentRefusedError, AgentUnreachableError
from carrel_hub.events import HUB_ACTOR, agent_actor
from carrel_hub.hosts.accounts import pinned_uid
from carrel_hub.routing.reach import reached_number
from carrel_hub.spawns.choice import option_variables
from carrel_hub.spawns.contract import contract_environment
from carrel_hub.spawns.outcomes import Outcomes
from carrel_hub.spawns.own_tokens import own_token
from carrel_hub.spawns.placing import place_server
from carrel_hub.spawns.profiles import (
    JUPYTERHUB,
    PLAIN,
    default_runner,
    directory_of,
    wants_scratch_home,
)
from carrel_hub.spawns.states import State, Step
from carrel_hub.spawns.transitions import (
    WAITING,
    begin_stop,
    drop_route,
    finish,
    promote,
)
from carrel_hub.users.accounts import USER
from carrel_shared.failpoints import failpoint
from carrel_shared.wire.servers import (
    ExitReport,
    ServerSpec,
    ServerState,
    StopRequest,
)

log = structlog.get_logger(__name__)

_STOP_ASK_SECONDS = 2.0

START_WAIT_SECONDS = 1.0
"""How long an agent may keep its answer to a start: most servers are ready by then."""


class Actions:
    """Takes steps for servers."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._rows = Outcomes(hub)

    async def take(self, row: Server, step: Step) -> None:
        """Take one step for the server that `row` was read of."""
        match step:
            case Step.PLACE:
                failpoint("hub.spawn.requested")
                if (placed := await self._place(row)) is not None:
                    await self._send(*placed)
            case Step.SEND | Step.ASK:
                failpoint("hub.spawn.requested")
                await self._send(row)
            case Step.PROMOTE:
                await self._promote(row)
            case Step.SEND_STOP:
                await self._send_stop(row)
            case Step.SETTLE:
                async with self._rows.same(row) as (session, current):
                    if current is not None:
                        at = self._rows.now()
                        await finish(session, current, at=at, actor=HUB_ACTOR, exit_=None)
            case Step.GIVE_UP:
                await self._give_up(row)
            case Step.ABORT:
                await self._abort(row)
            case Step.WAIT:
                pass
        await self._hub.wakeups.notify(row.id)

    async def _place(self, row: Server) -> tuple[Server, User] | None:
        """Choose a host; return the row as it stands then, and whose it is."""
        hub = self._hub
        async with self._rows.same(row) as (session, current):
            if current is None:
                return None
            user = await session.get_one(User, row.user_id)
            placement = await place_server(session, hub, current, user)
        if placement.host is None:
            await self._rows.postpone(row, problem=placement.reason)
            return None
        return current, user

    async def _send(self, row: Server, user: User | None = None) -> None:
        hub = self._hub
        host = row.host or ""
        if user is None:
            user = await hub.database.fetch_one(USER, key=row.user_id)
        if user is None:
            await self._rows.fail(row, "start_failed", "The user is gone.")
            return
        uid = await pinned_uid(hub.database, user, host)
        failpoint("hub.spawn.placed")
        spec = self._spec(row, user, uid)
        try:
            report = await hub.agents.start_server(host, spec, wait_seconds=START_WAIT_SECONDS)
        except AgentUnreachableError as error:
            log.warning("agent_unreachable", agent=host, server_id=row.id, reason=error.message)
            await self._rows.postpone(row, problem=error.message)
            return
        except AgentRefusedError as error:
            await self._refused(row, error)
            return
        failpoint("hub.spawn.sent")
        await self._rows.absorb(row, report)

    def _spec(self, row: Server, user: User, uid: int | None = None) -> ServerSpec:
        settings = self._hub.settings
        places = settings.places
        prefix = places.prefix(user.name, row.name)
        profile = settings.profiles.get(row.profile, PLAIN)
        for_jupyterhub = row.contract == JUPYTERHUB
        contract: dict[str, str] = {}
        if for_jupyterhub:
            contract = contract_environment(settings, row, user, own_token(self._hub, row))
        return ServerSpec(
            server_id=row.id,
            generation=row.generation,
            user=user.name,
            server_name=row.name,
            account=user.account or "",
            cwd=directory_of(profile, user.name),
            scratch_home=wants_scratch_home(row.user_options),
            runner=profile.runner or default_runner(settings.runner, profile),
            command=profile.command,
            listen="port" if for_jupyterhub else "socket",
            base_url=prefix,
            hub_prefix=settings.hub_prefix,
            default_url=profile.default_url or settings.default_url,
            secret=row.secret,
            limits=profile.limits.for_agent(),
            uid=uid,
            environment={
                "JUPYTERHUB_USER": user.name,
                "JUPYTERHUB_SERVER_NAME": row.name,
                "JUPYTERHUB_BASE_URL": settings.base_url,
                "JUPYTERHUB_HOST": places.hub_origin,
                "JUPYTERHUB_SERVICE_PREFIX": prefix,
                **profile.limits.variables(),
                **profile.guarantee.variables(),
                **contract,
                **settings.environment,
                **profile.environment,
                **option_variables(profile, row.user_options),
            },
            start_timeout_seconds=settings.start_timeout_seconds,
        )

    async def _refused(self, row: Server, error: AgentRefusedError) -> None:
        hub, host = self._hub, row.host or ""
        if error.agent_code == "server_running":
            # An earlier start that was given up came up after all. It must end before this one.
            problem = "an earlier start of this server still runs; ending it first"
            request = StopRequest(generation=row.generation, reason="replaced by a new start")
            try:
                await hub.agents.stop_server(host, row.id, request)
            except (AgentUnreachableError, AgentRefusedError) as failed:
                problem = failed.message
            await self._rows.postpone(row, problem=problem)
        elif error.agent_code == "generation_stale":
            await self._catch_up(row)
        else:
            log.warning("agent_refused_start", agent=host, server_id=row.id, reason=error.message)
            await self._rows.fail(row, "start_failed", f"Host {host} refused: {error.message}")

    async def _catch_up(self, row: Server) -> None:
        """The agent knows a higher generation: this database was restored from a backup."""
        try:
            report = await self._hub.agents.server(row.host or "", row.id)
        except (AgentUnreachableError, AgentRefusedError) as error:
            await self._rows.postpone(row, problem=error.message)
            return
        if report is None:
            await self._rows.postpone(row, problem="the host forgot the server; trying again")
            return
        if row.state != State.STOPPING:
            await self._rows.absorb(row, report)
        async with self._hub.database.write() as session:
            current = await session.get(Server, row.id)
            if current is None or current.state not in (State.QUEUED, State.STOPPING):
                return  # what runs was met as a surprise and is left alone
            beyond = 1 if current.state == State.QUEUED else 0
            current.generation = max(current.generation, report.generation + beyond)
            session.add(current)

    async def _promote(self, row: Server) -> None:
        names = [peer.name for peer in self._hub.settings.proxies]
        async with self._rows.same(row) as (session, current):
            if current is None or current.route_number is None:
                return
            if current.route_number <= await reached_number(session, names):
                promote(session, current, at=self._rows.now())

    async def _send_stop(self, row: Server) -> None:
        if row.attempts == 0:
            failpoint("hub.stop.requested")
        hub, host = self._hub, row.host or ""
        request = StopRequest(generation=row.generation, reason=row.stop_reason)
        try:
            report = await hub.agents.stop_server(host, row.id, request)
        except AgentUnreachableError as error:
            log.warning("agent_unreachable", agent=host, server_id=row.id, reason=error.message)
            await self._rows.postpone(row, problem=error.message)
            return
        except AgentRefusedError as error:
            log.warning("agent_refused_stop", agent=host, server_id=row.id, reason=error.message)
            await self._catch_up(row)
            await self._rows.postpone(row, problem=error.message)
            return
        failpoint("hub.stop.sent")
        if report is None:
            async with self._rows.same(row) as (session, current):
                if current is not None:
                    await drop_route(session, current, hub.settings.places)
                    at, actor = self._rows.now(), agent_actor(host)
                    await finish(session, current, at=at, actor=actor, exit_=None)
            return
        await self._rows.absorb(row, report, again_seconds=_STOP_ASK_SECONDS)

    async def _came_up_after_all(self, row: Server, *states: ServerState) -> bool:
        """Ask one last time: the hub itself may have been away while its time ran out."""
        if row.host is None:
            return False
        try:
            report = await self._hub.agents.server(row.host, row.id)
        except (AgentUnreachableError, AgentRefusedError):
            return False
        if report is None or report.generation != row.generation or report.state not in states:
            return False
        await self._rows.absorb(row, report)
        return True

    async def _give_up(self, row: Server) -> None:
        if await self._came_up_after_all(row, ServerState.STARTING, ServerState.READY):
            return
        seconds = int(self._hub.settings.start_timeout_seconds)
        problem = row.progress_message.removeprefix(WAITING).rstrip(".")
        if row.progress_message.startswith(WAITING):
            summary = f"The start was given up after {seconds} seconds: {problem}."
        else:
            summary = f"The start was given up after {seconds} seconds: no host took it."
        await self._rows.fail(row, "start_failed", summary)

    async def _abort(self, row: Server) -> None:
        if await self._came_up_after_all(row, ServerState.READY):
            return
        seconds = int(self._hub.settings.start_timeout_seconds)
        summary = f"The server did not answer within {seconds} seconds and was stopped."
        if row.progress_message.startswith(WAITING):
            problem = row.progress_message.removeprefix(WAITING).rstrip(".")
            summary = f"The start was given up after {seconds} seconds: {problem}."
        failure = ExitReport(cause="never_ready", summary=summary, at=self._rows.now())
        async with self._rows.same(row) as (session, current):
            if current is not None:
                await begin_stop(
                    session,
                    current,
                    self._hub.settings.places,
                    at=self._rows.now(),
                    actor=HUB_ACTOR,
                    reason=summary,
                    failure=failure,
                )
                if row.progress_message.startswith(WAITING):
                    # Its host is silent: the user hears now; should it come up, it is stopped then.
                    at = self._rows.now()
                    await finish(session, current, at=at, actor=HUB_ACTOR, exit_=None)

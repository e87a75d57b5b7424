"""Every change of a server's row, each with its event and its route change in one transaction.

Nothing here waits for the outside and nothing commits: the caller owns the transaction, and calls
`Wakeups.notify` after it.
"""

import secrets
from datetime import datetime, timedelta

import structlog
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.db.asking import ask_one
from carrel_hub.db.engine import REPLICA
from carrel_hub.db.models import Server
from carrel_hub.events import HUB_ACTOR, record, server_subject
from carrel_hub.hosts.accounts import pin
from carrel_hub.hosts.standing import HOST, relay_of
from carrel_hub.places import Places
from carrel_hub.routing.changes import append_change
from carrel_hub.routing.desired import server_route
from carrel_hub.spawns.limits import LIMIT_MET, in_words, news
from carrel_hub.spawns.own_tokens import end_own_token
from carrel_hub.spawns.states import ASK_SECONDS, State, Target
from carrel_hub.users.accounts import USER
from carrel_shared.wire.routes import DeleteRoute, PutRoute
from carrel_shared.wire.servers import ExitReport, ServerReport, ServerState

log = structlog.get_logger(__name__)

READY = "Server ready"
"""The progress message of a running server of which there is nothing else to say."""

WAITING = "Waiting: "
"""How the progress message of a start that cannot go on begins; what follows is the problem."""


def tell(
    session: AsyncSession,
    row: Server,
    kind: str,
    *,
    at: datetime,
    actor: str = HUB_ACTOR,
    message: str = "",
    data: dict[str, object] | None = None,
) -> None:
    """Add an event about a server to the transaction, and a line to the log."""
    record(
        session,
        kind,
        actor,
        server_subject(row.id),
        at=at,
        message=message,
        server_id=row.id,
        generation=row.generation,
        data=data,
    )
    log.info(kind, server_id=row.id, generation=row.generation, actor=actor, message=message)


def begin_start(session: AsyncSession, row: Server, *, at: datetime, actor: str) -> None:
    """Want a server: a new generation with a new secret, not yet placed."""
    row.target, row.state = Target.RUNNING, State.QUEUED
    drive_from_here(session, row)
    row.generation += 1
    row.secret = secrets.token_urlsafe(32)
    row.host = row.address = row.peer_uid = row.failure = None
    row.progress, row.progress_message, row.stop_reason = 0, "Server requested", ""
    row.requested_at, row.admitted_at, row.started_at, row.ready_at = at, None, None, None
    row.attempts, row.next_attempt_at = 0, None
    row.request_id = structlog.contextvars.get_contextvars().get("request_id")
    session.add(row)
    tell(session, row, "server.requested", at=at, actor=actor)


def drive_from_here(session: AsyncSession, row: Server) -> None:
    """Have this process take the server's steps."""
    me = session.info.get(REPLICA, "")
    if row.driver != me:
        row.driver, row.fence = me, row.fence + 1


def enter_start(session: AsyncSession, row: Server, *, at: datetime) -> None:
    """Let a start go ahead: from now on its time runs, and it counts as under way."""
    row.admitted_at, row.progress_message = at, "Server requested"
    drive_from_here(session, row)
    row.attempts, row.next_attempt_at = 0, None
    session.add(row)


async def begin_stop(
    session: AsyncSession,
    row: Server,
    places: Places,
    *,
    at: datetime,
    actor: str,
    reason: str,
    failure: ExitReport | None = None,
) -> None:
    """Want a server stopped: its route goes at once, its process when the agent has done it.

    Args:
        failure: Why it must end, when that is a failure; it then ends as `failed`.
    """
    row.target, row.state = Target.STOPPED, State.STOPPING
    drive_from_here(session, row)
    row.stop_reason, row.stopping_since = reason, at
    if failure is not None:
        row.failure = failure.model_dump(mode="json")
    row.progress_message = "Stopping"
    row.attempts, row.next_attempt_at = 0, None
    row.request_id = structlog.contextvars.get_contextvars().get("request_id") or row.request_id
    session.add(row)
    tell(session, row, "server.stop_requested", at=at, actor=actor, message=reason)
    await drop_route(session, row, places)


async def drop_route(session: AsyncSession, row: Server, places: Places) -> None:
    """Take a server's route away, if it has one."""
    if row.route_number is None:
        return
    row.route_number = None
    session.add(row)
    owner = await owner_name(session, row)
    route = DeleteRoute(host=places.host(owner), prefix=places.prefix(owner, row.name))
    await append_change(session, route)


async def owner_name(session: AsyncSession, row: Server) -> str:
    """Return the name of a server's user."""
    user = await ask_one(session, USER, key=row.user_id)
    if user is None:
        raise LookupError(f"server {row.id} has no user")
    return user.name


async def finish(
    session: AsyncSession, row: Server, *, at: datetime, actor: str, exit_: ExitReport | None
) -> None:
    """Note that no process is left. Call `drop_route` beside it.

    A server that was asked to stop is `stopped`, unless the cause of the stop was a failure. One
    that ended by itself has `failed`, unless it had been in use and said with status 0 that all
    is well, as JupyterLab does when its user shuts it down.
    """
    summary = exit_.summary if exit_ is not None else ""
    if row.target == Target.STOPPED:
        row.state = State.FAILED if row.failure is not None else State.STOPPED
        if row.failure is not None and exit_ is not None and not row.failure.get("log_tail"):
            row.failure = {**row.failure, "log_tail": exit_.log_tail}
    elif exit_ is not None and (
        exit_.cause == "stopped" or (exit_.code == 0 and row.ready_at is not None)
    ):
        row.state, row.stop_reason = State.STOPPED, summary
    else:
        row.state = State.FAILED
        exit_ = exit_ or ExitReport(
            cause="unknown", summary="The server ended and nobody saw why.", at=at
        )
        row.failure, summary = exit_.model_dump(mode="json"), exit_.summary
    data: dict[str, object] = {}
    if exit_ is not None:
        data = {"cause": exit_.cause, "code": exit_.code, "signal": exit_.signal}
    elif row.failure is not None and row.state == State.FAILED:
        data = {"cause": row.failure.get("cause")}
    if (seconds := _seconds(row, at)) is not None:
        data["seconds"] = seconds
    row.target = Target.STOPPED
    row.stopping_since = None
    row.address = row.peer_uid = row.started_at = row.ready_at = None
    row.secret, row.progress, row.progress_message = "", 0, ""
    row.attempts, row.next_attempt_at = 0, None
    session.add(row)
    tell(session, row, f"server.{row.state}", at=at, actor=actor, message=summary, data=data)
    await end_own_token(session, row)
    if row.remove_when_stopped:
        await remove_record(session, row, at=at, actor=actor)


def _seconds(row: Server, at: datetime) -> float | None:
    """Return how long a start took that came to nothing, or a stop; None for any other end."""
    since = row.stopping_since
    if row.state == State.FAILED:
        since = row.admitted_at if row.ready_at is None else None
    return None if since is None else round(max((at - since).total_seconds(), 0), 3)


async def remove_record(session: AsyncSession, row: Server, *, at: datetime, actor: str) -> None:
    """Forget a server that does not run. Its history and its owner's files stay."""
    tell(session, row, "server.removed", at=at, actor=actor)
    await session.delete(row)


async def fail_start(
    session: AsyncSession, row: Server, *, at: datetime, cause: str, summary: str, actor: str
) -> None:
    """Give a start up that no process came of."""
    row.failure = None
    report = ExitReport(cause=cause, summary=summary, at=at)
    await finish(session, row, at=at, actor=actor, exit_=report)


async def apply_report(
    session: AsyncSession,
    row: Server,
    report: ServerReport,
    places: Places,
    *,
    host: str,
    at: datetime,
    actor: str,
) -> bool:
    """Bring a row up to what its agent says, and return whether anything changed.

    Reports may come late, twice or out of order. One of a lower generation changes nothing, and
    one that says less than is known (starting, of a server that was ready) neither.
    """
    if report.generation < row.generation:
        return False
    alive = report.state in (ServerState.STARTING, ServerState.READY, ServerState.STOPPING)
    if report.generation > row.generation:
        return await _meet_newer(session, row, report, places, host=host, at=at, actor=actor)
    if row.state not in (State.STOPPED, State.FAILED):
        await _note_limits(session, row, report, at=at, actor=actor)
    if report.state in (ServerState.STOPPED, ServerState.FAILED):
        if row.state in (State.STOPPED, State.FAILED):
            return False
        await drop_route(session, row, places)
        await finish(session, row, at=at, actor=actor, exit_=report.exit)
        return True
    if report.state == ServerState.UNKNOWN:
        return lose_sight(session, row, at=at, reason=f"host {host} cannot say how it is")
    if row.state in (State.STOPPED, State.FAILED):
        # Asked for, given up, and then started after all by a request that came late.
        if report.state == ServerState.STOPPING or not alive:
            return False
        row.host = host
        await begin_stop(
            session,
            row,
            places,
            at=at,
            actor=HUB_ACTOR,
            reason="It came up after it was given up.",
        )
        return True
    if row.state == State.STOPPING or report.state == ServerState.STOPPING:
        return False
    if row.state in (State.QUEUED, State.STARTING) and report.account is not None:
        problem = await pin(session, row, host, report.account, at=at)
        if problem is not None:
            failure = ExitReport(
                cause="account_changed", summary=f"It was ended: {problem}.", at=at
            )
            await begin_stop(
                session, row, places, at=at, actor=HUB_ACTOR, reason=problem, failure=failure
            )
            return True
    if report.state == ServerState.STARTING:
        return _note_starting(session, row, report, at=at, actor=actor)
    return await _note_ready(session, row, report, places, at=at, actor=actor)


async def _note_limits(
    session: AsyncSession, row: Server, report: ServerReport, *, at: datetime, actor: str
) -> None:
    """Tell history and owner of limits that were met since the last report."""
    for event in await news(session, row, report.limit_events):
        data = {"limit": event.kind, "count": event.count, "at_most": event.limit}
        tell(
            session,
            row,
            LIMIT_MET,
            at=at,
            actor=actor,
            message=in_words(event),
            data={**data, "peak": event.peak},
        )
        if row.state == State.READY:
            row.progress_message = in_words(event)
            session.add(row)


def lose_sight(session: AsyncSession, row: Server, *, at: datetime, reason: str) -> bool:
    """Mark a running server unknown. Its route stays: most likely it runs on."""
    if row.state != State.READY:
        return False
    row.state = State.UNKNOWN
    session.add(row)
    tell(session, row, "server.unknown", at=at, message=reason)
    return True


def promote(session: AsyncSession, row: Server, *, at: datetime) -> None:
    """Call a server ready: it answers, and every proxy in contact has its route."""
    row.state, row.ready_at = State.READY, at
    row.progress, row.progress_message = 100, READY
    row.last_activity = row.last_activity if _newer(row.last_activity, at) else at
    row.attempts, row.next_attempt_at = 0, None
    session.add(row)
    took = (at - (row.admitted_at or at)).total_seconds()
    tell(session, row, "server.ready", at=at, data={"seconds": round(max(took, 0), 3)})


def _newer(known: datetime | None, at: datetime) -> bool:
    return known is not None and known > at


def _note_starting(
    session: AsyncSession, row: Server, report: ServerReport, *, at: datetime, actor: str
) -> bool:
    if row.state not in (State.QUEUED, State.STARTING) or row.route_number is not None:
        return False
    changed = row.state == State.QUEUED
    if changed:
        row.state, row.progress = State.STARTING, 30
        row.attempts, row.next_attempt_at = 0, at + timedelta(seconds=ASK_SECONDS)
        row.started_at = report.started_at or at
        row.runner = report.runner
        tell(session, row, "server.starting", at=at, actor=actor)
    message = report.progress or "The server is starting"
    if message != row.progress_message:
        if not changed:
            row.progress = min(row.progress + 10, 80)
        row.progress_message, changed = message, True
    session.add(row)
    return changed


async def _note_ready(
    session: AsyncSession,
    row: Server,
    report: ServerReport,
    places: Places,
    *,
    at: datetime,
    actor: str,
) -> bool:
    if report.target is None:
        return False
    if row.state == State.UNKNOWN and row.secret:
        row.state = State.READY
        session.add(row)
        tell(session, row, "server.returned", at=at, actor=actor)
        return True
    if row.state not in (State.QUEUED, State.STARTING) or row.route_number is not None:
        return False
    row.state, row.address, row.peer_uid = State.STARTING, report.target, report.peer_uid
    row.runner, row.started_at = report.runner, report.started_at or row.started_at or at
    row.progress, row.progress_message = 90, "The server answers; opening the way to it"
    row.attempts, row.next_attempt_at = 0, None
    session.add(row)
    tell(session, row, "server.answers", at=at, actor=actor)
    relay = None
    if row.host is not None and (found := await ask_one(session, HOST, key=row.host)) is not None:
        relay = relay_of(found)
    route = server_route(row, await owner_name(session, row), places, relay)
    row.route_number = await append_change(session, PutRoute(route=route))
    session.add(row)
    return True


async def _meet_newer(
    session: AsyncSession,
    row: Server,
    report: ServerReport,
    places: Places,
    *,
    host: str,
    at: datetime,
    actor: str,
) -> bool:
    """A generation this database never gave: it was restored from a backup.

    The hub goes on from the higher number. What still runs is kept, visible and can be stopped;
    it cannot be reached, since its secret is lost.
    """
    row.generation = report.generation
    session.add(row)
    if report.state in (ServerState.STOPPED, ServerState.FAILED, ServerState.UNKNOWN):
        return True
    await drop_route(session, row, places)
    row.target, row.state, row.host = Target.RUNNING, State.UNKNOWN, host
    row.secret, row.address, row.peer_uid = "", None, None
    row.progress_message = "It runs from before the database was restored; stop it to start anew"
    tell(
        session,
        row,
        "server.surprise",
        at=at,
        actor=actor,
        message=f"host {host} runs a generation this database does not know; it was left alone",
    )
    return True

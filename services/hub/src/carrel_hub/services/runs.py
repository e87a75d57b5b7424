"""The life of a managed service's process: what comes next, and what a report changes.

    stopped --due--> starting --answers, or runs--> ready --ends by itself--> stopped
    starting|ready --no longer wanted, or not like this--> stopping --ended--> stopped

Whatever ended is started again, at once when it had run for a while, else after a pause that
doubles. Nothing here waits for the outside and nothing commits.
"""

from datetime import datetime, timedelta
from enum import StrEnum

from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.db.models import ServiceRun
from carrel_hub.due import is_due
from carrel_hub.events import record, service_actor
from carrel_shared.backoff import backoff_seconds
from carrel_shared.wire.servers import ExitReport, ServerReport, ServerState

STEADY = timedelta(seconds=60)
"""What has run for so long is no longer failing."""

LOST_AFTER = timedelta(seconds=30)
"""A report may be older than a start; this much older it is not."""

LONGEST_PAUSE_SECONDS = 60.0
ASK_SECONDS = 5.0
STOP_ASK_SECONDS = 2.0

_ALIVE = (ServerState.STARTING, ServerState.READY, ServerState.STOPPING)
_ENDED = (ServerState.STOPPED, ServerState.FAILED)


class RunState(StrEnum):
    """What is known of a service's process."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"


class RunStep(StrEnum):
    """What the driver does next."""

    WAIT = "wait"
    START = "start"
    """A new generation; then `send` it."""
    SEND = "send"
    """Ask the agent for it. Asking again is harmless, and answers how it stands."""
    END = "end"
    """It is not wanted, or not like this; then `send_stop`."""
    SEND_STOP = "send_stop"


def decide(run: ServiceRun, *, now: datetime) -> RunStep:
    """Return the next step. Pure."""
    if run.state in (RunState.STARTING, RunState.READY) and run.fingerprint != run.wanted:
        return RunStep.END
    if not is_due(run.next_attempt_at, now) or run.state == RunState.READY:
        return RunStep.WAIT
    if run.state == RunState.STOPPING:
        return RunStep.SEND_STOP
    if run.state == RunState.STARTING:
        return RunStep.SEND
    return RunStep.START if run.wanted else RunStep.WAIT


def begin(session: AsyncSession, run: ServiceRun, *, at: datetime) -> None:
    """Decide a start."""
    run.generation += 1
    run.state, run.fingerprint = RunState.STARTING, run.wanted
    run.pid, run.started_at, run.next_attempt_at = 0, at, None
    session.add(run)
    _tell(session, run, "service.starting", at=at)


def begin_end(session: AsyncSession, run: ServiceRun, *, at: datetime) -> None:
    """Decide an end."""
    run.state, run.next_attempt_at = RunState.STOPPING, None
    session.add(run)
    reason = "its settings changed" if run.wanted else "it is not wanted any more"
    _tell(session, run, "service.stop_requested", at=at, message=reason)


def apply_report(
    session: AsyncSession, run: ServiceRun, report: ServerReport, *, at: datetime
) -> bool:
    """Bring a row up to what its agent says, and return whether anything changed."""
    if report.generation < run.generation:
        return False
    if report.generation > run.generation:  # this database was restored from a backup
        run.generation, run.fingerprint = report.generation, ""
        session.add(run)
        if report.state in _ALIVE and run.state == RunState.STOPPED:
            run.state, run.next_attempt_at = RunState.STARTING, None
    if report.state in _ENDED:
        if run.state == RunState.STOPPED:
            return False
        finish(session, run, report.exit, at=at)
        return True
    if report.state == ServerState.READY and run.state == RunState.STARTING:
        run.state, run.pid, run.failure = RunState.READY, report.pid or 0, None
        run.next_attempt_at = None
        session.add(run)
        _tell(session, run, "service.ready", at=at)
        return True
    return False


def lose(session: AsyncSession, run: ServiceRun, *, at: datetime) -> bool:
    """Ask again for what its agent does not speak of any more; return whether that was done."""
    if run.state != RunState.READY or at - (run.started_at or at) < LOST_AFTER:
        return False
    run.state, run.next_attempt_at = RunState.STARTING, None
    session.add(run)
    _tell(session, run, "service.lost", at=at, message="its host does not know it any more")
    return True


def finish(
    session: AsyncSession, run: ServiceRun, exit_: ExitReport | None, *, at: datetime
) -> None:
    """Note that no process is left, and when there is to be another."""
    asked, summary = run.state == RunState.STOPPING, exit_.summary if exit_ is not None else ""
    lived = at - (run.started_at or at)
    run.attempts = 0 if asked or lived >= STEADY else run.attempts + 1
    pause = backoff_seconds(run.attempts - 1, first=1, longest=LONGEST_PAUSE_SECONDS)
    run.next_attempt_at = at + timedelta(seconds=pause if run.attempts else 0)
    run.state, run.pid = RunState.STOPPED, 0
    run.failure = exit_.model_dump(mode="json") if exit_ is not None and not asked else None
    session.add(run)
    _tell(session, run, "service.stopped" if asked else "service.ended", at=at, message=summary)


def postpone(session: AsyncSession, run: ServiceRun, seconds: float, *, at: datetime) -> None:
    """Take the step again later."""
    run.next_attempt_at = at + timedelta(seconds=seconds)
    session.add(run)


def _tell(
    session: AsyncSession, run: ServiceRun, kind: str, *, at: datetime, message: str = ""
) -> None:
    actor = service_actor(run.service)
    record(session, kind, "hub", actor, at=at, message=message, generation=run.generation)

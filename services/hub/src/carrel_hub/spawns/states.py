"""The life of a server as the hub sees it. Pure: rows and facts in, the next step out.

    stopped|failed --start--> queued --let in, sent--> starting --reachable--> ready
    ready <--silence, return--> unknown
    anything --stop--> stopping --ended--> stopped (or failed, when the stop had a failure as cause)
    starting|ready|unknown --ended by itself--> failed

`target` is what is wanted, `state` what is known. A row needs work exactly while its state is one
of `PENDING`; every other state waits for a report or a request.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from carrel_hub.db.models import Server
from carrel_hub.due import is_due


class Target(StrEnum):
    """What is wanted of a server."""

    RUNNING = "running"
    STOPPED = "stopped"


class State(StrEnum):
    """What is known of a server."""

    STOPPED = "stopped"
    QUEUED = "queued"
    """Wanted; it waits for its turn, or no agent has taken it yet."""
    STARTING = "starting"
    """An agent has taken it; it does not answer yet, or the proxies have no route yet."""
    READY = "ready"
    STOPPING = "stopping"
    FAILED = "failed"
    """It ended by itself or never came up; `failure` says why."""
    UNKNOWN = "unknown"
    """Its host is silent. Unknown is not dead: routes stay and nothing is started elsewhere."""


PENDING = (State.QUEUED, State.STARTING, State.STOPPING)
"""The states in which a server needs the reconciler."""

ENDED = (State.STOPPED, State.FAILED)
"""The states in which no process is left."""

START_GRACE = timedelta(seconds=10)
"""How much longer than its agent the hub waits for a start, since the agent knows the cause."""

ASK_SECONDS = 5.0
"""How often a start that says nothing is asked after."""


class Step(StrEnum):
    """What the reconciler does next with a server."""

    WAIT = "wait"
    PLACE = "place"
    SEND = "send"
    ASK = "ask"
    PROMOTE = "promote"
    """Every proxy in contact has its route: it is ready."""
    SETTLE = "settle"
    """It was never sent anywhere, so it is stopped already."""
    SEND_STOP = "send_stop"
    GIVE_UP = "give_up"
    """Its time is over and no agent has it: the start has failed."""
    ABORT = "abort"
    """Its time is over and an agent has it: the start has failed, and what there is must end."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A step, and when to look again if nothing else happens before.

    Attributes:
        at: None when only a change of the row makes a difference.
    """

    step: Step
    at: datetime | None = None


def deadline(row: Server, start_timeout: timedelta) -> datetime:
    """Return when a start that was let in must have come to something."""
    return (row.admitted_at or row.requested_at or row.created) + start_timeout


def decide(row: Server, *, reachable: bool, start_timeout: timedelta, now: datetime) -> Decision:
    """Return the next step for a server.

    Args:
        row: The server as the database has it.
        reachable: Every proxy in contact has the row's route.
        start_timeout: How long a start may take, from when it was let in.
        now: The time.
    """
    if row.state == State.STOPPING:
        if row.host is None:
            return Decision(Step.SETTLE)
        return _when_due(row, Step.SEND_STOP, now)
    if row.state == State.QUEUED:
        if row.admitted_at is None:
            return Decision(Step.WAIT)  # for its turn: see `carrel_hub.spawns.line`
        limit = deadline(row, start_timeout)
        if now >= limit:
            return Decision(Step.GIVE_UP)
        due = _when_due(row, Step.PLACE if row.host is None else Step.SEND, now)
        return Decision(due.step, min(due.at, limit) if due.at else None)
    if row.state == State.STARTING:
        if row.route_number is not None:
            return Decision(Step.PROMOTE) if reachable else Decision(Step.WAIT)
        limit = deadline(row, start_timeout) + START_GRACE
        if now >= limit:
            return Decision(Step.ABORT)
        due = _when_due(row, Step.ASK, now)
        return Decision(due.step, min(due.at, limit) if due.at else None)
    return Decision(Step.WAIT)


def _when_due(row: Server, step: Step, now: datetime) -> Decision:
    if not is_due(row.next_attempt_at, now):
        return Decision(Step.WAIT, row.next_attempt_at)
    return Decision(step)


def may_start(row: Server) -> str | None:
    """Return why a server cannot be started now, or None when it can."""
    match State(row.state):
        case State.STOPPED | State.FAILED:
            return None
        case State.QUEUED | State.STARTING:
            return "it is starting already"
        case State.STOPPING:
            return "it is still stopping; start it again when that is done"
        case State.READY:
            return "it is already running"
        case State.UNKNOWN:
            return (
                "its host does not answer, so it may well be running; it will be usable again when"
                " the host is back, or can be stopped"
            )

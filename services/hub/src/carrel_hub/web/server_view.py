"""What a person is told of a server, and what can be done with it now. Pure."""

import signal
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from carrel_hub.db.models import Server
from carrel_hub.spawns.profiles import wants_scratch_home
from carrel_hub.spawns.standing import Standing
from carrel_hub.spawns.states import State
from carrel_hub.spawns.transitions import READY


@dataclass(frozen=True, slots=True)
class ServerView:
    """A server as a page shows it.

    Attributes:
        state: The state's word, for style and scripts.
        words: The state in plain words.
        detail: What more there is to say, or nothing.
        changing: It will soon be something else, so a page should look again.
    """

    state: str
    words: str
    detail: str
    changing: bool
    can_start: bool
    can_open: bool
    can_stop: bool
    progress: int


_WORDS = {
    State.STOPPED: "Not running",
    State.QUEUED: "Waiting to start",
    State.STARTING: "Starting",
    State.READY: "Running",
    State.STOPPING: "Stopping",
    State.FAILED: "Failed",
    State.UNKNOWN: "Not known",
}

_UNKNOWN_DETAIL = (
    "Its host does not answer at the moment. Most likely it runs on, and is here again when the"
    " host is."
)


def view(row: Server | None, *, now: datetime, standing: Standing | None = None) -> ServerView:
    """Describe a server; None is one that was never started.

    Args:
        standing: Where in the line it waits, if it does and that is to be told.
    """
    state = State(row.state) if row is not None else State.STOPPED
    return ServerView(
        state=str(state),
        words=_WORDS[state],
        detail=standing.words if standing else _detail(row, state, now),
        changing=state in (State.QUEUED, State.STARTING, State.STOPPING),
        can_start=state in (State.STOPPED, State.FAILED),
        can_open=state in (State.READY, State.UNKNOWN),
        can_stop=state in (State.QUEUED, State.STARTING, State.READY, State.UNKNOWN),
        progress=row.progress if row is not None else 0,
    )


def _detail(row: Server | None, state: State, now: datetime) -> str:
    if row is None:
        return ""
    if state == State.READY:
        since = row.ready_at or row.started_at
        lasting = f"for {duration(now - since)}" if since else ""
        if wants_scratch_home(row.user_options):
            lasting = f"{lasting}, in a scratch home".removeprefix(", ")
        return lasting if row.progress_message == READY else f"{lasting}. {row.progress_message}"
    if state in (State.QUEUED, State.STARTING):
        return row.progress_message
    if state == State.FAILED:
        return str((row.failure or {}).get("summary", ""))
    if state == State.UNKNOWN:
        return row.progress_message if not row.secret else _UNKNOWN_DETAIL
    return row.stop_reason


def duration(span: timedelta) -> str:
    """Return a span of time as people say it."""
    minutes = max(int(span.total_seconds()), 0) // 60
    if minutes < 1:
        return "less than a minute"
    for size, word in ((24 * 60, "day"), (60, "hour"), (1, "minute")):
        if minutes >= size:
            count = minutes // size
            return f"{count} {word}" if count == 1 else f"{count} {word}s"
    raise AssertionError("a minute is a minute")


@dataclass(frozen=True, slots=True)
class FailureView:
    """Why a start came to nothing, or why a server ended."""

    summary: str
    advice: str
    command: str
    status: str
    log_tail: list[str]
    scratch_home: bool


def failure_view(failure: dict[str, Any] | None) -> FailureView:
    """Describe a stored exit report."""
    failure = failure or {}
    code, number = failure.get("code"), failure.get("signal")
    if isinstance(number, int):
        status = f"Ended by signal {number} ({_signal_name(number)})"
    elif isinstance(code, int):
        status = f"Ended with exit status {code}"
    else:
        status = ""
    tail = failure.get("log_tail")
    return FailureView(
        advice=str(failure.get("advice") or ""),
        command=str(failure.get("command") or ""),
        summary=str(failure.get("summary") or "The server ended and nobody saw why."),
        status=status,
        scratch_home=failure.get("scratch_home") is True,
        log_tail=[str(line) for line in tail] if isinstance(tail, list) else [],
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"

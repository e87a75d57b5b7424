"""What follows from a server's record. Decisions only: nothing here waits, reads or signals."""

from dataclasses import dataclass
from enum import Enum, auto
from signal import Signals

from carrel_agent.supervise.confinement import in_words
from carrel_agent.supervise.record import Record
from carrel_shared.wire.limits import LimitEvent
from carrel_shared.wire.servers import ServerReport, ServerState

START_FAILURE_CODES = range(70, 80)
"""Exit statuses of a process that could not become a server; its log says why."""
TAIL_LINES = 40


class StartVerdict(Enum):
    """What to do with a request to start a generation."""

    NEW = auto()
    SAME = auto()
    STALE = auto()
    RUNNING = auto()


class StopVerdict(Enum):
    """What to do with a request to stop a generation."""

    STOP = auto()
    ENDED = auto()
    STALE = auto()
    UNKNOWN = auto()


class Adoption(Enum):
    """What to do, when the agent starts, with a record of an earlier agent."""

    KEEP = auto()
    """It has ended; nothing to do."""
    REBOOTED = auto()
    """The machine was started anew since, so it has ended."""
    SEARCH = auto()
    """A start was decided; whether it happened is to be found out."""
    FOLLOW = auto()
    """Its process is known: if it is still that one, go on with it."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a server's process ended, as far as anybody saw.

    Attributes:
        failure: Why there never was a process, in plain words.
        rebooted: The machine was started anew.
        out_of_memory: A process of it was killed for its memory limit just before.
    """

    code: int | None = None
    signal: int | None = None
    failure: str = ""
    rebooted: bool = False
    out_of_memory: LimitEvent | None = None


def state_of(record: Record, *, unresolved: bool = False) -> ServerState:
    """Return the state the hub is told.

    Args:
        record: The server.
        unresolved: It is not known yet whether, or as what, it runs.
    """
    if record.exit is not None:
        stopped = record.exit.cause == "stopped"
        return ServerState.STOPPED if stopped else ServerState.FAILED
    if unresolved:
        return ServerState.UNKNOWN
    if record.stop is not None or record.never_ready:
        return ServerState.STOPPING
    return ServerState.READY if record.ready_at is not None else ServerState.STARTING


def report_of(record: Record, *, progress: str = "", unresolved: bool = False) -> ServerReport:
    """Return what the hub is told of a server."""
    state = state_of(record, unresolved=unresolved)
    reachable = record.ready_at is not None and record.exit is None
    return ServerReport(
        server_id=record.server_id,
        generation=record.generation,
        state=state,
        runner=record.runner,
        target=_target(record) if reachable else None,
        # What listens on a port cannot be asked by a connection who it is.
        peer_uid=record.uid if reachable and not record.port else None,
        pid=record.handle.pid if record.handle else None,
        started_at=record.started_at,
        ready_at=record.ready_at,
        progress=progress,
        limit_events=list(record.limit_events),
        exit=record.exit,
    )


def _target(record: Record) -> str:
    return f"http://127.0.0.1:{record.port}" if record.port else f"unix:{record.socket}"


def judge_start(known: Record | None, generation: int) -> StartVerdict:
    """Decide about a request to start `generation`."""
    if known is None or generation > known.generation:
        alive = known is not None and known.exit is None
        return StartVerdict.RUNNING if alive else StartVerdict.NEW
    if generation < known.generation or known.forgotten:
        return StartVerdict.STALE
    return StartVerdict.SAME


def judge_stop(known: Record | None, generation: int) -> StopVerdict:
    """Decide about a request to stop `generation`."""
    if known is None or known.forgotten or generation > known.generation:
        return StopVerdict.UNKNOWN
    if generation < known.generation:
        return StopVerdict.STALE
    return StopVerdict.STOP if known.exit is None else StopVerdict.ENDED


def judge_adoption(record: Record, boot_id: str) -> Adoption:
    """Decide what an agent that starts does with a record."""
    if record.exit is not None:
        return Adoption.KEEP
    if record.boot_id != boot_id:
        return Adoption.REBOOTED
    return Adoption.SEARCH if record.handle is None else Adoption.FOLLOW


def cause_of(record: Record, ending: Ending) -> str:
    """Return the stable word for how a server ended."""
    if ending.rebooted:
        return "host_rebooted"
    if record.stop is not None:
        return "stopped"
    if record.never_ready:
        return "never_ready"
    if ending.out_of_memory is not None and ending.signal == Signals.SIGKILL:
        return "memory_limit"
    if ending.failure or (record.ready_at is None and ending.code in START_FAILURE_CODES):
        return "start_failed"
    if ending.signal is not None:
        return "signalled"
    return "unknown" if ending.code is None else "exited"


def summarise(record: Record, ending: Ending, tail: list[str]) -> str:
    """Return the end of a server in plain words, for its owner."""
    cause = cause_of(record, ending)
    last = _last_words(tail)
    match cause:
        case "host_rebooted":
            return "The machine it ran on was restarted."
        case "stopped":
            reason = record.stop.reason if record.stop else ""
            return f"It was stopped: {reason}." if reason else "It was stopped."
        case "never_ready":
            waited = (record.deadline_at - record.requested_at).total_seconds()
            return f"It did not answer within {waited:g} seconds and was ended.{last}"
        case "start_failed":
            return ending.failure or f"It could not be started.{last}"
        case "memory_limit" if ending.out_of_memory is not None:
            return _out_of_memory(ending.out_of_memory) + last
        case "signalled":
            return _killed_by(ending.signal or 0) + last
        case "exited" if ending.code == 0:
            return "It ended by itself: somebody shut it down from inside."
        case "exited":
            return f"It ended by itself with exit status {ending.code}.{last}"
        case _:
            return "It has ended. How is not known: nobody was there to see it." + last


def _out_of_memory(event: LimitEvent) -> str:
    limit = "its limit" if event.limit is None else f"its limit of {in_words(event.limit)}"
    return (
        f"It reached {limit} of memory, and the system ended it. Use less at a time, or ask for a"
        " higher limit."
    )


def _killed_by(number: int) -> str:
    try:
        name = Signals(number).name
    except ValueError:
        name = "unknown"
    advice = {
        Signals.SIGKILL: " This is often the system running out of memory.",
        Signals.SIGSEGV: " A program error in it or in a library it uses.",
        Signals.SIGXCPU: " It used up the processor time it was allowed.",
    }
    return f"It was killed by signal {number} ({name}).{advice.get(number, '')}"  # type: ignore[call-overload]


def _last_words(tail: list[str]) -> str:
    spoken = next((line.strip() for line in reversed(tail) if line.strip()), "")
    return f" Its last words: {spoken[:300]}" if spoken else ""

"""How a server ended, in a stable word for programs and in plain words for its owner. Pure."""

from dataclasses import dataclass, field, replace
from signal import Signals

from carrel_agent.supervise.clues import Clue, find_clue
from carrel_agent.supervise.confinement import in_words
from carrel_agent.supervise.record import Record
from carrel_shared.wire.limits import LimitEvent

START_FAILURE_CODES = range(70, 80)
"""Exit statuses of a process that could not become a server; its log says why."""
TAIL_LINES = 200
AGAIN = "Start it again."
SCRATCH = "Or start it with a scratch home, for this once."


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


@dataclass(frozen=True, slots=True)
class Evidence:
    """What else is known when a server has ended.

    Attributes:
        tail: The last lines it printed.
        home: What is wrong with the file system of its home, as "is full"; else empty.
        last_status: What it answered last, if it never became ready: an HTTP status, 0 if it took
            the connection and gave no answer, None if it took none.
        port_taken: Its port is listened on by another account.
        can_move: This agent could give it a scratch home.
    """

    tail: list[str] = field(default_factory=list)
    home: str = ""
    last_status: int | None = None
    port_taken: bool = False
    can_move: bool = True


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is told.

    Attributes:
        cause: A stable word; see `ExitReport`.
        summary: What happened.
        advice: What can be done about it; empty where there is nothing to do.
        scratch_home: It may do to start it in a scratch home.
    """

    cause: str
    summary: str
    advice: str = ""
    scratch_home: bool = False


def explain(record: Record, ending: Ending, evidence: Evidence) -> Explanation:
    """Return what is told of a server's end."""
    cause = cause_of(record, ending)
    match cause:
        case "host_rebooted":
            return Explanation(cause, "The machine it ran on was restarted.", AGAIN)
        case "stopped":
            reason = record.stop.reason if record.stop else ""
            return Explanation(cause, f"It was stopped: {reason}." if reason else "It was stopped.")
        case "memory_limit" if ending.out_of_memory is not None:
            return _out_of_memory(ending.out_of_memory)
        case "exited" if ending.code == 0 and record.ready_at is not None:
            return Explanation(
                cause, "It ended by itself: somebody shut it down from inside.", AGAIN
            )
        case "unknown":
            return Explanation(
                cause, "It has ended. How is not known: nobody was there to see it.", AGAIN
            )
        case _:
            return _failed(record, ending, evidence, cause)


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


def _failed(record: Record, ending: Ending, evidence: Evidence, cause: str) -> Explanation:
    told = _what_happened(record, ending, evidence, cause)
    clue = _clue(evidence, ending)
    if clue is not None:
        helps = evidence.can_move and not record.scratch and _is_of_the_home(clue, record)
        advice = f"{clue.advice} {SCRATCH}" if helps else clue.advice
        summary = f"{told.summary} {clue.meaning}"
        return replace(told, summary=summary, advice=advice, scratch_home=helps)
    spoken = next((line.strip() for line in reversed(evidence.tail) if line.strip()), "")
    if spoken and not ending.failure:
        told = replace(told, summary=f"{told.summary} Its last words: {spoken[:300]}")
    return told


def _is_of_the_home(clue: Clue, record: Record) -> bool:
    inside = bool(record.home) and f"{clue.what}/".startswith(f"{record.home.rstrip('/')}/")
    return clue.of_home or inside


def _clue(evidence: Evidence, ending: Ending) -> Clue | None:
    if evidence.home:
        return Clue(
            f"The disk that holds your home {evidence.home}.",
            "Delete what you do not need there; if it is not yours, tell an administrator.",
            of_home=True,
        )
    if ending.failure:
        return find_clue([ending.failure])
    return find_clue(evidence.tail)


def _what_happened(record: Record, ending: Ending, evidence: Evidence, cause: str) -> Explanation:
    match cause:
        case "never_ready":
            return _never_ready(record, evidence)
        case "start_failed":
            return Explanation(cause, ending.failure or "It could not be started.")
        case "signalled":
            return _killed_by(ending.signal or 0)
        case _ if ending.code == 0:
            return Explanation(
                cause,
                "It ended at once, and said that all is well.",
                "The command of the profile must stay in the foreground, not start a daemon.",
            )
        case _:
            return Explanation(cause, f"It ended by itself with exit status {ending.code}.")


def _never_ready(record: Record, evidence: Evidence) -> Explanation:
    waited = (record.deadline_at - record.requested_at).total_seconds()
    told = f"It did not answer within {waited:g} seconds and was ended."
    where = f"port {record.port}" if record.port else "the socket it was given"
    slow = (
        "If it only needs longer, as with a slow disk or many extensions, an administrator can"
        " raise start_timeout_seconds."
    )
    if evidence.port_taken:
        return Explanation(
            "never_ready",
            f"{told} Its port {record.port} was taken by another account of this host.",
            AGAIN,
        )
    if evidence.last_status is None:
        advice = (
            "The command of the profile must listen where JUPYTERHUB_SERVICE_URL says."
            if record.port
            else slow
        )
        return Explanation("never_ready", f"{told} It never listened on {where}.", advice)
    if evidence.last_status == 0:
        return Explanation("never_ready", f"{told} It listened on {where} and said nothing.", slow)
    return Explanation(
        "never_ready",
        f"{told} It answered with status {evidence.last_status} instead of being ready.",
        "Its output says more; an administrator can follow it while it starts.",
    )


def _out_of_memory(event: LimitEvent) -> Explanation:
    if event.limit is None:
        return Explanation(
            "memory_limit",
            "Its host ran out of memory, and the system ended it.",
            "Use less at a time, or another host; administrators can limit what servers use.",
        )
    limit = f"its limit of {in_words(event.limit)}"
    return Explanation(
        "memory_limit",
        f"It reached {limit} of memory, and the system ended it.",
        "Use less at a time, or ask for a higher limit.",
    )


_SIGNALS = {
    Signals.SIGKILL: (
        " This is often the system running out of memory.",
        "Use less at a time, or another host; an administrator can see what the system did.",
    ),
    Signals.SIGSEGV: (" A program error in it or in a library it uses.", AGAIN),
    Signals.SIGXCPU: (" It used up the processor time it was allowed.", AGAIN),
}


def _killed_by(number: int) -> Explanation:
    try:
        name = Signals(number).name
    except ValueError:
        name = "unknown"
    meaning, advice = _SIGNALS.get(number, ("", AGAIN))  # type: ignore[call-overload]
    return Explanation("signalled", f"It was killed by signal {number} ({name}).{meaning}", advice)

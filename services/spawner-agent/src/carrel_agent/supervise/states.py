"""What follows from a server's record. Decisions only: nothing here waits, reads or signals."""

from enum import Enum, auto

from carrel_agent.supervise.record import Record
from carrel_shared.wire.servers import AccountFacts, ServerReport, ServerState


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
    reachable = record.listens and record.ready_at is not None and record.exit is None
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
        account=_account(record),
    )


def _account(record: Record) -> AccountFacts | None:
    if record.gid is None:
        return None
    return AccountFacts(account=record.account, uid=record.uid, gid=record.gid, home=record.home)


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

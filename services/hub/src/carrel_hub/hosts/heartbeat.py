"""What a report says of its host, and whether it is that host's at all."""

from datetime import datetime, timedelta

import structlog
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.context import Hub
from carrel_hub.db.asking import add_new, take_one, to_change
from carrel_hub.db.models import AgentHost
from carrel_hub.errors import ConflictError
from carrel_hub.events import agent_actor, record
from carrel_hub.hosts.standing import CLOCK_TOLERANCE_SECONDS, is_heard
from carrel_shared.wire.agents import AgentReport

log = structlog.get_logger(__name__)

_TOLD_AGAIN = timedelta(minutes=10)
"""What is refused again and again is told so often."""

_PAST = timedelta(seconds=60)
"""A trouble that was not met for so long is over."""

_HOST = to_change(AgentHost, "name")


class ImpostorError(ConflictError):
    """Two agents report as one host."""

    code = "two_agents"


class OtherMachineError(ImpostorError):
    """Another machine has a host's credentials, and the host itself is silent."""

    code = "another_machine"


async def note_host(
    session: AsyncSession, hub: Hub, name: str, report: AgentReport
) -> AgentHost | None:
    """Store what the report says of the host; None when it is older than the last one.

    Raises:
        ImpostorError: Another machine, or another agent process, reports under this name.
    """
    host = await take_one(session, _HOST, name=name) or add_new(session, AgentHost, name=name)
    now = hub.clock.now()
    if report.instance == host.instance:
        if report.sequence <= host.sequence:
            log.info("late_report_ignored", agent=name, sequence=report.sequence)
            return None
    else:
        _check_instance(hub, host, report, now)
        _note_move(session, host, report, now)
        log.info("agent_instance", agent=name, version=report.version)
        host.previous_instance, host.instance = host.instance, report.instance
    host.sequence, host.version = report.sequence, report.version
    host.boot_id, host.place = report.boot_id, report.place
    host.machine, host.other_machine = report.machine or host.machine, ""
    host.accounts, host.capacity = report.accounts, report.capacity.model_dump()
    host.labels, host.homes = report.labels, report.homes
    _note_clock(session, host, report.at, now)
    if host.seen_at is None:
        record(session, "host.ready", agent_actor(name), agent_actor(name), at=now)
    host.seen_at = now
    session.add(host)
    return host


def _check_instance(hub: Hub, host: AgentHost, report: AgentReport, now: datetime) -> None:
    if report.instance == host.previous_instance:
        raise ImpostorError(
            f"another agent reports as {host.name!r} since: two agents must not share one name and"
            " key; stop this one, or give it its own"
        )
    silence = timedelta(seconds=hub.settings.agent_silence_seconds)
    elsewhere = ""
    if host.boot_id != report.boot_id:
        elsewhere = "on another machine"
    elif host.place and host.place != report.place:
        elsewhere = "from another directory, on the same kernel"
    if host.instance and elsewhere and is_heard(host, now=now, silence=silence):
        raise ImpostorError(
            f"host {host.name} runs {elsewhere}, which was heard"
            f" {(now - host.seen_at).total_seconds():.0f} seconds ago: these credentials were"  # type: ignore[operator]
            " copied. Remove them here, and join with a token of its own. (After a reboot, or a"
            f" move of its state, in {silence.total_seconds():.0f} seconds this ends by itself.)"
        )

    if host.joined_at and host.machine and report.machine not in ("", host.machine):
        raise OtherMachineError(
            f"this machine is not the one that host {host.name} joined from: its credentials were"
            " copied, or its disk was put into another machine. If this one is to be the host now,"
            f" have an administrator accept it (`carrel-hub host accept {host.name}`, or its page);"
            " else join with a token of its own"
        )


def _note_move(session: AsyncSession, host: AgentHost, report: AgentReport, now: datetime) -> None:
    """Say that a host goes on from another directory: nobody can tell a move from a copy."""
    if host.boot_id == report.boot_id and host.place and host.place != report.place:
        subject = agent_actor(host.name)
        message = "its agent has its state elsewhere than before"
        record(session, "host.moved", subject, subject, at=now, message=message)
        log.warning("host.moved", agent=host.name)


def _note_clock(
    session: AsyncSession, host: AgentHost, theirs: datetime | None, now: datetime
) -> None:
    off = (theirs - now).total_seconds() if theirs is not None else 0.0
    was_off, is_off = clock_is_off(host), abs(off) > CLOCK_TOLERANCE_SECONDS
    host.clock_off = off
    if is_off:
        way = "ahead of" if off > 0 else "behind"
        host.trouble = f"its clock is {abs(off):.0f} seconds {way} the hub's"
        host.trouble_at = now
        if not was_off:
            _tell(session, host, "host.clock_off", now)
    elif was_off or (host.trouble_at is not None and now - host.trouble_at > _PAST):
        host.trouble, host.trouble_at = "", None


def clock_is_off(host: AgentHost) -> bool:
    """Whether a host's clock was too far from the hub's when it last reported."""
    return abs(host.clock_off) > CLOCK_TOLERANCE_SECONDS


async def note_refusal(hub: Hub, name: str, reason: str, *, machine: str = "") -> None:
    """Keep it visible that somebody was refused who showed what is a host's.

    Args:
        machine: Of whoever that was, if an administrator may accept it.
    """
    async with hub.database.write() as session:
        host = await session.get(AgentHost, name)
        now = hub.clock.now()
        if host is None:
            return
        last = host.trouble_at
        news = host.trouble != reason or last is None or now - last > _TOLD_AGAIN
        host.trouble, host.trouble_at = reason, now
        host.other_machine = machine or host.other_machine
        session.add(host)
        if news:
            _tell(session, host, "host.refused", now)


def _tell(session: AsyncSession, host: AgentHost, kind: str, at: datetime) -> None:
    subject = agent_actor(host.name)
    record(session, kind, subject, subject, at=at, message=host.trouble)
    log.warning(kind, agent=host.name, reason=host.trouble)

"""What agents report, brought into the rows. Reports may come late, twice, or out of order."""

from collections.abc import Sequence

import structlog
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.context import Hub
from carrel_hub.db.models import AgentHost, Event, Server
from carrel_hub.errors import ConflictError
from carrel_hub.events import agent_actor, record, server_subject
from carrel_hub.services.managed import SERVICES, absorb_reports
from carrel_hub.spawns.states import ENDED, State
from carrel_hub.spawns.transitions import apply_report, lose_sight
from carrel_shared.failpoints import failpoint
from carrel_shared.wire.agents import AgentReport, AgentReportReply
from carrel_shared.wire.servers import ServerReport, ServerState

log = structlog.get_logger(__name__)

HEARTBEAT_SECONDS = 10.0

_ENDED_REPORTS = (ServerState.STOPPED, ServerState.FAILED)


async def receive_report(hub: Hub, name: str, report: AgentReport) -> AgentReportReply:
    """Store an agent's report and say which ended servers it may forget.

    Args:
        name: The agent, as its key says.

    Raises:
        ConflictError: Another agent process reports under this name.
    """
    changed: list[str] = []
    routed = False
    async with hub.database.write() as session:
        fresh = await _note_host(session, hub, name, report)
        services, forget = set[str](), list[str]()
        if fresh:
            services, forget, service_changed = await absorb_reports(
                session, hub, name, report.servers
            )
            changed += [SERVICES] if service_changed else []
        servers = [server for server in report.servers if server.server_id not in services]
        rows, unchanged = await _rows(session, name, servers)
        if fresh:
            for server in servers:
                row = rows.get(server.server_id)
                if row is None and server.server_id in unchanged:
                    continue
                if row is None:
                    await _note_stranger(session, hub, name, server)
                    continue
                had_route = row.route_number is not None
                if await apply_report(
                    session,
                    row,
                    server,
                    hub.settings.places,
                    host=name,
                    at=hub.clock.now(),
                    actor=agent_actor(name),
                ):
                    changed.append(row.id)
                routed = routed or (not had_route and row.route_number is not None)
            changed += _missing(session, hub, name, rows, report)
        forget += [
            server.server_id
            for server in servers
            if server.state in _ENDED_REPORTS and _is_stored(rows.get(server.server_id), server)
        ]
    if routed:
        failpoint("hub.spawn.routed")
    if changed:
        await hub.wakeups.notify(*changed)
    return AgentReportReply(heartbeat_seconds=HEARTBEAT_SECONDS, forget=forget)


async def _note_host(session: AsyncSession, hub: Hub, name: str, report: AgentReport) -> bool:
    """Store what the report says of the host; return whether the report is newer than the last."""
    host = await session.get(AgentHost, name)
    if host is None:
        host = AgentHost(name=name)
    if report.instance == host.previous_instance:
        raise ConflictError(
            f"another agent reports as {name!r} since: two agents must not share one name and key;"
            " stop this one, or give it its own"
        )
    if report.instance == host.instance:
        if report.sequence <= host.sequence:
            log.info("late_report_ignored", agent=name, sequence=report.sequence)
            return False
    else:
        log.info("agent_instance", agent=name, version=report.version)
        host.previous_instance, host.instance = host.instance, report.instance
    host.sequence, host.boot_id, host.version = report.sequence, report.boot_id, report.version
    host.accounts, host.capacity = report.accounts, report.capacity.model_dump()
    host.seen_at = hub.clock.now()
    session.add(host)
    return True


async def _rows(
    session: AsyncSession, name: str, reports: Sequence[ServerReport]
) -> tuple[dict[str, Server], set[str]]:
    """Return the rows that a report is about, and the ids of those it says nothing new of."""
    here = select(Server.id, Server.state, Server.generation).where(
        Server.host == name, col(Server.state).not_in(ENDED)
    )
    reported = {report.server_id: report for report in reports}
    unchanged, wanted = set(), set(reported)
    for server_id, state, generation in (await session.exec(here)).all():
        report = reported.get(server_id)
        if report is not None and state == State.READY and _is_no_news(report, generation):
            unchanged.add(server_id)
        else:
            wanted.add(server_id)
    rows: dict[str, Server] = {}
    missing = sorted(wanted - unchanged)
    for start in range(0, len(missing), 500):
        part = missing[start : start + 500]
        for row in (await session.exec(select(Server).where(col(Server.id).in_(part)))).all():
            rows[row.id] = row
    return rows, unchanged


def _is_no_news(report: ServerReport, generation: int) -> bool:
    """Whether a report says what is known already of a server that is ready."""
    return (
        report.state == ServerState.READY
        and report.generation == generation
        and not report.limit_events
    )


def _missing(
    session: AsyncSession, hub: Hub, name: str, rows: dict[str, Server], report: AgentReport
) -> list[str]:
    """Mark servers unknown that should run here and that the agent does not know."""
    known = {server.server_id for server in report.servers}
    lost = []
    for row in rows.values():
        if row.id not in known and row.host == name and row.state == State.READY:
            reason = f"host {name} does not know this server any more"
            lose_sight(session, row, at=hub.clock.now(), reason=reason)
            lost.append(row.id)
    return lost


def _is_stored(row: Server | None, server: ServerReport) -> bool:
    if row is None or row.generation > server.generation:
        return True
    return row.generation == server.generation and row.state in ENDED


async def _note_stranger(session: AsyncSession, hub: Hub, name: str, server: ServerReport) -> None:
    """Keep a server that this database does not know visible. It is never stopped for that."""
    if server.state in _ENDED_REPORTS:
        return
    seen = (
        await session.exec(
            select(Event.id).where(
                Event.server_id == server.server_id, Event.kind == "server.surprise"
            )
        )
    ).first()
    if seen is not None:
        return
    message = f"host {name} runs a server this database does not know; it was left alone"
    log.warning("server.surprise", agent=name, server_id=server.server_id)
    record(
        session,
        "server.surprise",
        agent_actor(name),
        server_subject(server.server_id),
        at=hub.clock.now(),
        message=message,
        server_id=server.server_id,
        generation=server.generation,
    )

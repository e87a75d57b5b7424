"""What agents report, brought into the rows. Reports may come late, twice, or out of order."""

from collections.abc import Sequence
from datetime import timedelta

import structlog
from sqlalchemy import bindparam
from sqlalchemy import select as columns
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.context import Hub
from carrel_hub.db.asking import ask, take, to_change
from carrel_hub.db.models import AgentHost, Event, Server
from carrel_hub.db.prepared import Prepared
from carrel_hub.events import agent_actor, record, server_subject
from carrel_hub.hosts.heartbeat import (
    ImpostorError,
    OtherMachineError,
    note_host,
    note_refusal,
)
from carrel_hub.hosts.standing import is_heard
from carrel_hub.services.managed import SERVICES, absorb_reports
from carrel_hub.spawns.profiles import preloaded
from carrel_hub.spawns.states import ENDED, State
from carrel_hub.spawns.transitions import apply_report, lose_sight
from carrel_shared.failpoints import failpoint
from carrel_shared.wire.agents import AgentReport, AgentReportReply, Running
from carrel_shared.wire.servers import ServerReport, ServerState

log = structlog.get_logger(__name__)

HEARTBEATS = 3.5
"""How many of its heartbeats a host may miss before it counts as silent."""

AT_ONCE = 20
"""How many servers are looked up by one statement."""

_PLACES = [f"server_{number}" for number in range(AT_ONCE)]
_SERVERS = to_change(Server).where(col(Server.id).in_([bindparam(place) for place in _PLACES]))
_HERE: Prepared[tuple[str, str, int]] = Prepared(
    columns(col(Server.id), col(Server.state), col(Server.generation)).where(
        col(Server.host) == bindparam("host"), *(col(Server.state) != state for state in ENDED)
    ),
    lambda *cells: cells,
)

_ENDED_REPORTS = (ServerState.STOPPED, ServerState.FAILED)


async def receive_report(hub: Hub, name: str, report: AgentReport) -> AgentReportReply:
    """Store an agent's report and say which ended servers it may forget.

    Args:
        name: The agent, as its key says.

    Raises:
        ImpostorError: Another machine or agent process reports under this name.
    """
    try:
        return await _take(hub, name, report)
    except ImpostorError as error:
        machine = report.machine if isinstance(error, OtherMachineError) else ""
        await note_refusal(hub, name, error.message, machine=machine)
        raise


async def _take(hub: Hub, name: str, report: AgentReport) -> AgentReportReply:
    changed: list[str] = []
    routed = False
    told = [one.server_id for one in report.servers]
    told += [one.server_id for one in report.unchanged]
    async with hub.database.write() as session:
        host = await note_host(session, hub, name, report)
        services, forget = set[str](), list[str]()
        if host is not None:
            services, forget, service_changed = await absorb_reports(
                session, hub, name, report.servers, report.unchanged
            )
            changed += [SERVICES] if service_changed else []
        servers = [server for server in report.servers if server.server_id not in services]
        rows, quiet = await _rows(session, name, servers, report.unchanged)
        if host is not None:
            for server in servers:
                row = rows.get(server.server_id)
                if row is None and server.server_id in quiet:
                    continue
                if row is None or not await _may_tell(session, hub, name, row, server):
                    await _note_stranger(session, hub, name, server, row)
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
            changed += _missing(session, hub, name, rows, set(told))
        forget += [
            server.server_id
            for server in servers
            if server.state in _ENDED_REPORTS and _is_stored(rows.get(server.server_id), server)
        ]
    if routed:
        failpoint("hub.spawn.routed")
    if changed:
        await hub.wakeups.notify(*changed)
    return AgentReportReply(
        heartbeat_seconds=hub.settings.agent_silence_seconds / HEARTBEATS,
        forget=forget,
        repeat=[
            one.server_id
            for one in report.unchanged
            if one.server_id not in services and one.server_id not in quiet
        ],
        trouble=host.trouble if host is not None else "",
        preload=preloaded(hub.settings.profiles, report.labels),
    )


async def _rows(
    session: AsyncSession, name: str, reports: Sequence[ServerReport], brief: Sequence[Running]
) -> tuple[dict[str, Server], set[str]]:
    """Return the rows that a report is about, and the ids of those it says nothing new of."""
    reported = {report.server_id: report for report in reports}
    named = {one.server_id: one.generation for one in brief}
    unchanged, wanted = set(), set(reported)
    for server_id, state, generation in await ask(session, _HERE, host=name):
        report = reported.get(server_id)
        if server_id in named:
            if named[server_id] == generation and state in (State.READY, State.STOPPING):
                unchanged.add(server_id)
            continue  # what is otherwise here is asked for
        if report is not None and state == State.READY and _is_no_news(report, generation):
            unchanged.add(server_id)
        else:
            wanted.add(server_id)
    rows: dict[str, Server] = {}
    missing = sorted(wanted - unchanged)
    for start in range(0, len(missing), AT_ONCE):
        part = missing[start : start + AT_ONCE]
        part += [""] * (AT_ONCE - len(part))
        some = dict(zip(_PLACES, part, strict=True))
        rows |= {row.id: row for row in await take(session, _SERVERS, **some)}
    return rows, unchanged


async def _may_tell(
    session: AsyncSession, hub: Hub, name: str, row: Server, report: ServerReport
) -> bool:
    """Whether a host may say how a server is: a host tells of what was placed there (T35).

    A generation that was never given is met after a restore from a backup, wherever it runs; but
    not as long as the host that has the server is silent, or says that it runs there.
    """
    if row.host == name or report.generation < row.generation:
        return True
    if report.generation == row.generation:
        return False
    if row.host is None or row.state in ENDED:
        return True
    host = await session.get(AgentHost, row.host)
    silence = timedelta(seconds=hub.settings.agent_silence_seconds)
    heard = host is not None and is_heard(host, now=hub.clock.now(), silence=silence)
    return heard and row.state == State.UNKNOWN


def _is_no_news(report: ServerReport, generation: int) -> bool:
    """Whether a report says what is known already of a server that is ready."""
    return (
        report.state == ServerState.READY
        and report.generation == generation
        and not report.limit_events
    )


def _missing(
    session: AsyncSession, hub: Hub, name: str, rows: dict[str, Server], known: set[str]
) -> list[str]:
    """Mark servers unknown that should run here and that the agent does not know."""
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


async def _note_stranger(
    session: AsyncSession, hub: Hub, name: str, server: ServerReport, row: Server | None
) -> None:
    """Keep visible what runs where it was not placed. It is never stopped for that."""
    if server.state in _ENDED_REPORTS:
        return
    seen = (
        await session.exec(
            select(Event.id).where(
                Event.server_id == server.server_id,
                Event.kind == "server.surprise",
                Event.actor == agent_actor(name),
            )
        )
    ).first()
    if seen is not None:
        return
    what = "this database does not know" if row is None else "that was not placed there"
    message = f"host {name} says that it runs a server {what}; it was left alone"
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

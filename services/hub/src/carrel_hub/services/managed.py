"""Which services are to run, as rows: from the settings when a hub starts, and from reports."""

import secrets
from collections.abc import Iterable, Sequence

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.context import Hub
from carrel_hub.db.asking import take, to_change
from carrel_hub.db.models import ServiceRun
from carrel_hub.services.launch import fingerprint
from carrel_hub.services.runs import RunState, apply_report, lose
from carrel_hub.services.settings import ServiceSettings
from carrel_hub.settings import HubSettings
from carrel_shared.wire.agents import Running
from carrel_shared.wire.servers import ServerReport, ServerState

SERVICES = "services"
"""What to watch and notify, in place of a server's id, for the processes of services."""

_ENDED = (ServerState.STOPPED, ServerState.FAILED)

_ON_HOST = to_change(ServiceRun, "host")


async def want_services(session: AsyncSession, hub: Hub) -> None:
    """Have what the settings say run, and nothing else."""
    entries = {entry.name: entry for entry in hub.settings.services if entry.command}
    runs = {run.service: run for run in (await session.exec(select(ServiceRun))).all()}
    for name in runs.keys() - entries.keys():
        runs[name].wanted = ""
        session.add(runs[name])
        if runs[name].state == RunState.STOPPED:
            await session.delete(runs[name])
    for name, entry in entries.items():
        host = host_of(hub.settings, entry)
        run = runs.get(name) or ServiceRun(id=secrets.token_hex(6), service=name, host=host)
        if run.state == RunState.STOPPED:
            run.host = host
            run.next_attempt_at, run.attempts = None, 0
        # One that runs on another host ends there first.
        run.wanted = fingerprint(hub.settings, entry) if run.host == host else ""
        session.add(run)


def host_of(settings: HubSettings, entry: ServiceSettings) -> str:
    """Return the name of the host that is to run a service."""
    return entry.host or settings.agents[0].name


async def want_none(session: AsyncSession) -> None:
    """Have every managed service end, until a hub starts again."""
    for run in (await session.exec(select(ServiceRun).where(ServiceRun.wanted != ""))).all():
        run.wanted = ""
        session.add(run)


async def running(session: AsyncSession) -> Sequence[ServiceRun]:
    """Return the runs of which something is left."""
    statement = select(ServiceRun).where(col(ServiceRun.state) != RunState.STOPPED)
    return (await session.exec(statement.order_by(col(ServiceRun.service)))).all()


async def any_left(hub: Hub) -> bool:
    """Whether something runs that no settings name any more, and is to be ended."""
    async with hub.database.read() as session:
        return bool(await running(session))


async def find_run(session: AsyncSession, service: str) -> ServiceRun | None:
    """Return the run of a service that is, or was, managed."""
    return (await session.exec(select(ServiceRun).where(ServiceRun.service == service))).first()


async def pids(session: AsyncSession, names: Iterable[str]) -> dict[str, int]:
    """Return the processes of those services that are managed and ready."""
    statement = select(ServiceRun.service, ServiceRun.pid).where(
        col(ServiceRun.service).in_(list(names)), col(ServiceRun.state) == RunState.READY
    )
    return dict((await session.exec(statement)).all())


async def absorb_reports(
    session: AsyncSession,
    hub: Hub,
    host: str,
    reports: Iterable[ServerReport],
    unchanged: Iterable[Running] = (),
) -> tuple[set[str], list[str], bool]:
    """Bring services up to what their agent says.

    Args:
        unchanged: Of these nothing is new. One that is otherwise here is not among what is
            returned, so that the agent is asked.

    Returns:
        Which of the reports were about services, which of these may be forgotten, and whether
        anything changed.
    """
    known = {run.id: run for run in await take(session, _ON_HOST, host=host)}
    mine: set[str] = set()
    forget: list[str] = []
    changed = False
    for report in reports:
        run = known.get(report.server_id)
        if run is None:
            continue
        mine.add(run.id)
        changed |= apply_report(session, run, report, at=hub.clock.now())
        stored = run.generation > report.generation or run.state == RunState.STOPPED
        if report.state in _ENDED and stored:
            forget.append(run.id)
    named = {one.server_id: one.generation for one in unchanged}
    mine |= {
        run.id
        for run in known.values()
        if run.state == RunState.READY and named.get(run.id) == run.generation
    }
    for run in known.values():
        if run.id not in mine and run.id not in named:
            changed |= lose(session, run, at=hub.clock.now())
    return mine, forget, changed

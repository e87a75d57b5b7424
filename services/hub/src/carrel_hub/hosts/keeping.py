"""Emptying hosts and taking them away."""

from datetime import datetime, timedelta

from sqlmodel import col, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.context import Hub
from carrel_hub.db.models import AgentHost, HostAccount, JoinToken, Server
from carrel_hub.errors import ConflictError, NotFoundError
from carrel_hub.events import agent_actor, record
from carrel_hub.hosts.standing import is_heard, known_names
from carrel_hub.services.managed import running
from carrel_hub.services.runs import finish as end_run
from carrel_hub.services.store import set_routes_of_host
from carrel_hub.spawns.service import request_stop
from carrel_hub.spawns.states import ENDED, State
from carrel_hub.spawns.transitions import drop_route, finish
from carrel_shared.wire.servers import ExitReport


async def find_host(session: AsyncSession, hub: Hub, name: str) -> AgentHost:
    """Return a host that may be called.

    Raises:
        NotFoundError: There is none of this name.
    """
    if name not in await known_names(session, hub.settings):
        raise NotFoundError(f"there is no host {name!r}")
    return await session.get(AgentHost, name) or AgentHost(name=name)


async def set_draining(
    session: AsyncSession, hub: Hub, host: AgentHost, on: bool, *, actor: str
) -> None:
    """Place nothing new on a host, or take it in again."""
    if host.draining != on:
        host.draining = on
        session.add(host)
        kind = "host.draining" if on else "host.taken_in"
        record(session, kind, actor, agent_actor(host.name), at=hub.clock.now())


async def accept_machine(session: AsyncSession, hub: Hub, host: AgentHost, *, actor: str) -> None:
    """Let the machine be a host that was refused with its credentials; the one before is not.

    Raises:
        ConflictError: None was refused.
    """
    if not host.other_machine:
        raise ConflictError(f"no other machine was refused that has the credentials of {host.name}")
    host.machine, host.other_machine, host.trouble = host.other_machine, "", ""
    session.add(host)
    subject = agent_actor(host.name)
    record(session, "host.machine_accepted", actor, subject, at=hub.clock.now())


async def evacuate(session: AsyncSession, hub: Hub, host: AgentHost, *, actor: str) -> list[str]:
    """Drain a host and have its servers end; return their ids. Wake the hub after the commit."""
    await set_draining(session, hub, host, True, actor=actor)
    ended = []
    for row in await _servers(session, host.name):
        if row.state != State.STOPPING:
            reason = f"host {host.name} is being emptied; start it again to go on elsewhere"
            await request_stop(session, hub, row, actor=actor, reason=reason)
            ended.append(row.id)
    data: dict[str, object] = {"servers": len(ended)}
    at = hub.clock.now()
    record(session, "host.evacuated", actor, agent_actor(host.name), at=at, data=data)
    return ended


async def remove_host(
    session: AsyncSession, hub: Hub, host: AgentHost, *, actor: str, servers_are_lost: bool = False
) -> list[str]:
    """Take a host away: its credentials are void at once. Return the servers that are given up.

    Args:
        servers_are_lost: What it ran is over, somebody says who knows; nothing else proves it.

    Raises:
        ConflictError: It is one of the settings, or servers may still run there.
    """
    if any(peer.name == host.name for peer in hub.settings.agents):
        raise ConflictError(f"host {host.name} is in the hub's settings; take it out there")
    rows = await _servers(session, host.name)
    if rows and not servers_are_lost:
        raise ConflictError(
            f"{len(rows)} servers run on host {host.name}, or may: evacuate it first; if the"
            ' machine is gone for good, say so with {"servers": "lost"}'
        )
    at = hub.clock.now()
    silence = timedelta(seconds=hub.settings.agent_silence_seconds)
    heard = is_heard(host, now=at, silence=silence)
    if rows and heard:
        raise ConflictError(
            f"host {host.name} reports, so its servers are not lost: evacuate it first"
        )
    for row in rows:
        exit_ = ExitReport(
            cause="host_removed", summary=f"Its host, {host.name}, was taken away.", at=at
        )
        await drop_route(session, row, hub.settings.places)
        await finish(session, row, at=at, actor=actor, exit_=exit_)
    await _let_services_go(session, host.name, heard=heard, at=at)
    host.removed_at, host.draining, host.trouble = at, False, ""
    session.add(host)
    await session.flush()
    await set_routes_of_host(session, hub, host.name)
    await session.exec(delete(JoinToken).where(col(JoinToken.host) == host.name))
    await session.exec(delete(HostAccount).where(col(HostAccount.host) == host.name))
    record(session, "host.removed", actor, agent_actor(host.name), at=at)
    return [row.id for row in rows]


async def _let_services_go(session: AsyncSession, host: str, *, heard: bool, at: datetime) -> None:
    """Give up the services of a host that is silent; those of one that is not go by the settings.

    Raises:
        ConflictError: Some may run there.
    """
    for run in await running(session):
        if run.host == host and heard:
            raise ConflictError(
                f"the service {run.service} runs on host {host}: name another host for it in the"
                " hub's settings first, and start the hub anew"
            )
        if run.host == host:
            exit_ = ExitReport(
                cause="host_removed", summary=f"Its host, {host}, was taken away.", at=at
            )
            end_run(session, run, exit_, at=at)


async def _servers(session: AsyncSession, name: str) -> list[Server]:
    statement = select(Server).where(Server.host == name, col(Server.state).not_in(ENDED))
    return list((await session.exec(statement)).all())

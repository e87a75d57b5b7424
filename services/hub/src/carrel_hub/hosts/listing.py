"""Every host there is: those of the settings, those that joined, those a token awaits."""

from datetime import timedelta
from typing import Any

from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.context import Hub
from carrel_hub.db.models import AgentHost, JoinToken, Server
from carrel_hub.hosts.standing import Standing, known_hosts, standing_of
from carrel_hub.spawns.states import ENDED
from carrel_hub.users.models import timestamp


async def list_host_models(session: AsyncSession, hub: Hub) -> list[dict[str, Any]]:
    """Return what is known of every host, as the REST API shows it; those that are gone come last.

    A host that only has a token has no more than its name, state and `token_expires_at`.
    """
    hosts = list(await known_hosts(session, hub.settings))
    gone = select(AgentHost).where(col(AgentHost.removed_at).is_not(None))
    names = {host.name for host in hosts}
    hosts += [one for one in (await session.exec(gone)).all() if one.name not in names]
    running = select(Server.host, func.count()).where(col(Server.state).not_in(ENDED))
    counts = dict((await session.exec(running.group_by(col(Server.host)))).all())
    waiting = select(JoinToken).where(JoinToken.expires_at > hub.clock.now())
    tokens = (await session.exec(waiting.order_by(col(JoinToken.host)))).all()
    known = {host.name for host in hosts if host.removed_at is None}
    awaited = {token.host for token in tokens}
    models = [
        host_model(hub, host, counts.get(host.name, 0))
        for host in hosts
        if host.name in known or host.name not in awaited
    ]
    return models + [
        {
            "name": token.host,
            "state": str(Standing.JOINING),
            "token_expires_at": timestamp(token.expires_at),
        }
        for token in tokens
        if token.host not in known
    ]


def host_model(hub: Hub, host: AgentHost, servers: int | None) -> dict[str, Any]:
    """Return a host as the REST API shows it.

    Args:
        servers: How many servers run there, or may; None leaves that out.
    """
    now, silence = hub.clock.now(), timedelta(seconds=hub.settings.agent_silence_seconds)
    model: dict[str, Any] = {
        "name": host.name,
        "state": str(standing_of(host, now=now, silence=silence)),
        "trouble": host.trouble,
        "another_machine": bool(host.other_machine),
        "labels": host.labels,
        "capacity": host.capacity,
        "accounts": host.accounts,
        "homes": host.homes,
        "version": host.version,
        "address": host.address or None,
        "joined": timestamp(host.joined_at),
        "last_seen": timestamp(host.seen_at),
        "clock_off_seconds": host.clock_off,
    }
    if servers is not None:
        model["servers"] = servers
    return model

"""What placement is told of a server and of the hosts, from rows."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import bindparam
from sqlalchemy import select as columns
from sqlmodel import col, func
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.db.asking import ask, ask_one
from carrel_hub.db.models import AgentHost, HostAccount, Server, User
from carrel_hub.db.prepared import Prepared
from carrel_hub.hosts.heartbeat import clock_is_off
from carrel_hub.hosts.standing import known_hosts
from carrel_hub.settings import HubSettings
from carrel_hub.spawns.placement import Needs, Offer
from carrel_hub.spawns.profiles import PLAIN
from carrel_hub.spawns.states import ENDED

_LAST_HOST: Prepared[str] = Prepared(
    columns(col(HostAccount.host))
    .where(col(HostAccount.user_id) == bindparam("user_id"))
    .order_by(col(HostAccount.used_at).desc())
    .limit(1),
    lambda host: host,
)
_RESERVED = (Server.reserved_memory, Server.reserved_cores, Server.reserved_gpus)
_TAKEN: Prepared[tuple[str, Sequence[float]]] = Prepared(
    columns(col(Server.host), func.count(), *(func.sum(one) for one in _RESERVED))
    .where(col(Server.host).is_not(None), *(col(Server.state) != state for state in ENDED))
    .group_by(col(Server.host)),
    lambda host, *rest: (host, rest),
)


async def needs_of(session: AsyncSession, settings: HubSettings, row: Server, user: User) -> Needs:
    """Return what a server asks of its host."""
    profile = settings.profiles.get(row.profile, PLAIN)
    return Needs(
        account=user.account or "",
        labels=profile.labels,
        memory=profile.guarantee.memory or 0,
        cores=profile.guarantee.cpu or 0.0,
        gpus=profile.gpus,
        last_host=await last_host(session, user),
    )


async def last_host(session: AsyncSession, user: User) -> str | None:
    """Return where a server of somebody ran last."""
    return await ask_one(session, _LAST_HOST, user_id=user.id)


async def offers(session: AsyncSession, settings: HubSettings, now: datetime) -> Sequence[Offer]:
    """Return every host that may be called, with what is reserved there."""
    taken = dict(await ask(session, _TAKEN))
    return [
        _offer(host, taken.get(host.name, (0, 0, 0, 0)), settings, now)
        for host in await known_hosts(session, settings)
    ]


def _offer(host: AgentHost, taken: Sequence[float], settings: HubSettings, now: datetime) -> Offer:
    count, memory, cores, gpus = taken
    has = host.capacity
    return Offer(
        name=host.name,
        heard_seconds=None if host.seen_at is None else (now - host.seen_at).total_seconds(),
        silence_seconds=settings.agent_silence_seconds,
        trouble=host.trouble if clock_is_off(host) else "",
        draining=host.draining,
        accounts=host.accounts,
        labels=host.labels,
        cores=int(has.get("cores", 1)),
        memory_total=int(has.get("memory_total", 0)),
        memory_available=int(has.get("memory_available", 0)),
        gpus=len(has.get("gpus", ())),
        reserved_memory=int(memory),
        reserved_cores=float(cores),
        reserved_gpus=int(gpus),
        servers=int(count),
    )

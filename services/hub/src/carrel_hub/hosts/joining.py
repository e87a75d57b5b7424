"""Join tokens, and what they are exchanged for."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlmodel import col, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.auth.digest import digest, new_secret
from carrel_hub.context import Hub
from carrel_hub.db.models import AgentHost, JoinToken, Server, User
from carrel_hub.errors import ConflictError, ForbiddenError, InvalidRequestError
from carrel_hub.events import agent_actor, record
from carrel_hub.hosts.standing import CLOCK_TOLERANCE_SECONDS, is_heard, relay_of
from carrel_hub.routing.changes import append_change
from carrel_hub.routing.desired import server_route
from carrel_hub.services.store import set_routes_of_host
from carrel_shared.addresses import AddressError, TcpAddress, check_upstream_host
from carrel_shared.wire.hosts import JoinReply, JoinRequest, RenewReply
from carrel_shared.wire.routes import PutRoute

log = structlog.get_logger(__name__)

TOKEN_LIFETIME = timedelta(hours=1)
"""How long a host may take from its token to its joining."""

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


@dataclass(frozen=True, slots=True)
class NewJoinToken:
    """A join token; the only moment it is known.

    Attributes:
        text: The secret, and the authority's fingerprint, by which the host knows this hub.
    """

    text: str
    expires_at: datetime

    def __repr__(self) -> str:
        return "NewJoinToken()"


async def issue_join_token(
    session: AsyncSession, hub: Hub, name: str, *, actor: str, lifetime: timedelta = TOKEN_LIFETIME
) -> NewJoinToken:
    """Let one host join under this name, once. Earlier tokens for the name are void.

    Raises:
        InvalidRequestError: No host can have this name.
        ConflictError: It is the name of a host of the settings.
        AuthorityError: There is no authority.
    """
    if not _NAME.fullmatch(name):
        raise InvalidRequestError(
            f"{name!r} cannot be a host's name: lower-case letters, digits and hyphens, 63 at most"
        )
    if any(peer.name == name for peer in hub.settings.agents):
        raise ConflictError(f"host {name} is in the hub's settings, so it need not join")
    authority, now, secret = hub.fleet.authority, hub.clock.now(), new_secret()
    stale = (col(JoinToken.host) == name) | (col(JoinToken.expires_at) <= now)
    await session.exec(delete(JoinToken).where(stale))
    expires_at = now + lifetime
    session.add(JoinToken(token_hash=digest(secret), host=name, created=now, expires_at=expires_at))
    record(session, "host.token_created", actor, agent_actor(name), at=now)
    return NewJoinToken(f"{secret}.{authority.fingerprint}", expires_at)


async def join_host(session: AsyncSession, hub: Hub, asked: JoinRequest) -> JoinReply:
    """Exchange a join token for a host's own credentials. Those it had before are void.

    Raises:
        ForbiddenError: The token is not good.
        ConflictError: The machine, its clock, or whoever has the name now stands against it.
        InvalidRequestError: The address or the signing request cannot be used.
    """
    now = hub.clock.now()
    token = await session.get(JoinToken, digest(asked.token))
    if token is None or token.expires_at <= now:
        raise ForbiddenError(
            "this join token is not good: it was used, has expired, or a newer one was made; make"
            " another with `carrel-hub token agent NAME`"
        )
    _check_clock(asked.at, now)
    _check_address(asked.address)
    await _check_machine(session, hub, token.host, asked.boot_id)
    host = await session.get(AgentHost, token.host) or AgentHost(name=token.host)
    again = host.joined_at is not None and host.removed_at is None
    host.credentials += 1
    host.joined_at, host.removed_at, host.seen_at = now, None, None
    host.instance = host.previous_instance = host.trouble = ""
    host.boot_id, host.sequence, host.draining = asked.boot_id, 0, False
    host.place = host.machine = host.other_machine = ""
    host.address, host.agent_port = asked.address, asked.agent_port
    host.relay_port = asked.relay_port
    session.add(host)
    await session.delete(token)
    await _lead_there(session, hub, host)
    authority = hub.fleet.authority
    certificate = authority.sign_host(asked.request, host.name, now)
    message = f"{host.address}, ports {host.agent_port} and {host.relay_port}"
    kind = "host.joined_again" if again else "host.joined"
    record(session, kind, agent_actor(host.name), agent_actor(host.name), at=now, message=message)
    log.info(kind, agent=host.name, address=host.address)
    return JoinReply(
        name=host.name,
        hub_key=authority.hub_key(host.name, host.credentials),
        agent_key=authority.agent_key(host.name, host.credentials),
        certificate=certificate,
        authority=authority.certificate,
        base_url=hub.settings.base_url,
    )


def renew_certificate(hub: Hub, name: str, request: str) -> RenewReply:
    """Sign anew for a host that has joined.

    Raises:
        InvalidRequestError: The signing request cannot be used.
    """
    authority = hub.fleet.authority
    certificate = authority.sign_host(request, name, hub.clock.now())
    return RenewReply(certificate=certificate, authority=authority.certificate)


def _check_clock(theirs: datetime, now: datetime) -> None:
    off = (theirs - now).total_seconds()
    if abs(off) > CLOCK_TOLERANCE_SECONDS:
        way = "ahead of" if off > 0 else "behind"
        raise ConflictError(
            f"this host's clock is {abs(off):.0f} seconds {way} the hub's; set it (by NTP, say) and"
            " join again with the same token"
        )


def _check_address(address: str) -> None:
    try:
        if not address or not address.isprintable() or any(c in address for c in "/@ ?#[]"):
            raise AddressError(f"{address!r} is no address")
        check_upstream_host(TcpAddress(address, 1))
    except AddressError as error:
        raise InvalidRequestError(f"address: {error}") from error


async def _check_machine(session: AsyncSession, hub: Hub, name: str, boot_id: str) -> None:
    """One machine is one host, and one host is one machine."""
    now, silence = hub.clock.now(), timedelta(seconds=hub.settings.agent_silence_seconds)
    statement = select(AgentHost).where(col(AgentHost.removed_at).is_(None))
    for host in (await session.exec(statement)).all():
        if not is_heard(host, now=now, silence=silence):
            continue
        if host.name == name and host.boot_id != boot_id:
            raise ConflictError(
                f"host {name} is another machine, at {host.address or 'its address'}, and runs;"
                " give this one a name of its own, or have that one leave (`carrel-agent leave`)"
            )
        if host.name != name and host.boot_id == boot_id:
            way = "have it leave first (`carrel-agent leave`)"
            if host.joined_at is None:
                way = "take it out of the hub's settings first"
            raise ConflictError(f"this machine is the hub's host {host.name} already; {way}")


async def _lead_there(session: AsyncSession, hub: Hub, host: AgentHost) -> None:
    """Have the proxies find what a host runs that joined, perhaps again at a new address."""
    statement = (
        select(Server, User.name)
        .join(User, col(User.id) == col(Server.user_id))
        .where(Server.host == host.name, col(Server.route_number).is_not(None))
    )
    await set_routes_of_host(session, hub, host.name)
    for row, user in (await session.exec(statement)).all():
        route = server_route(row, user, hub.settings.places, relay_of(host))
        row.route_number = await append_change(session, PutRoute(route=route))
        session.add(row)

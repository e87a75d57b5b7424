"""What people and programs may ask of servers. Changes rows; the reconciler does the work."""

import secrets
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam
from sqlalchemy import select as columns
from sqlmodel import col, delete, func, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.context import Hub
from carrel_hub.db.asking import add_new, ask_one, do, take_one, to_change
from carrel_hub.db.models import Server, Token, User
from carrel_hub.db.prepared import Prepared
from carrel_hub.errors import ConflictError, InvalidRequestError, TooManyRequestsError
from carrel_hub.events import HUB_ACTOR, user_actor
from carrel_hub.groups.membership import groups_of
from carrel_hub.hosts.standing import known_hosts
from carrel_hub.routing.changes import revoke
from carrel_hub.spawns.choice import Choice, choose
from carrel_hub.spawns.line import find_room, join
from carrel_hub.spawns.naming import good_server_name
from carrel_hub.spawns.own_tokens import issue_own_token
from carrel_hub.spawns.paths import is_routable, wanted_client_id
from carrel_hub.spawns.placement import SHARED
from carrel_hub.spawns.placing import place_server
from carrel_hub.spawns.profiles import (
    JUPYTERHUB,
    PLAIN,
    wants_scratch_home,
    with_scratch_home,
)
from carrel_hub.spawns.states import ENDED, State, may_start
from carrel_hub.spawns.transitions import begin_start, begin_stop, finish, remove_record, tell
from carrel_shared.wire.routes import Revocation

_OF_USER = to_change(Server, "user_id", "name")
_USED = update(User).where(col(User.id) == bindparam("which")).values(last_activity=bindparam("at"))
_CLIENT: Prepared[str] = Prepared(
    columns(col(Server.id)).where(col(Server.client_id) == bindparam("client_id")),
    lambda server_id: server_id,
)


async def find_server(session: AsyncSession, user: User, name: str = "") -> Server | None:
    """Return a user's server of that name; the empty name is the default server."""
    return (
        await session.exec(select(Server).where(Server.user_id == user.id, Server.name == name))
    ).first()


async def server_to_change(session: AsyncSession, user: User, name: str = "") -> Server | None:
    """Return the same in a transaction that may write: what is changed in it is written."""
    return await take_one(session, _OF_USER, user_id=user.id, name=name)


async def ensure_server(
    session: AsyncSession, user: User, name: str = "", *, at: datetime, actor: str = HUB_ACTOR
) -> Server:
    """Return a user's server row, made if need be, with an OAuth client id nobody else has."""
    row = await server_to_change(session, user, name)
    if row is not None:
        return row
    wanted = wanted_client_id(user.name, name)
    taken = await ask_one(session, _CLIENT, client_id=wanted)
    client_id = wanted if taken is None else f"{wanted}-{secrets.token_hex(3)}"
    assert user.id is not None  # noqa: S101 - it came from the database
    row = add_new(
        session,
        Server,
        id=secrets.token_hex(6),
        user_id=user.id,
        name=name,
        display_name=name,
        client_id=client_id,
        created=at,
    )
    tell(session, row, "server.created", at=at, actor=actor)
    return row


async def request_start(
    session: AsyncSession,
    hub: Hub,
    user: User,
    *,
    actor: str,
    server_name: str = "",
    user_options: dict[str, Any] | None = None,
    display_name: str | None = None,
    scratch_home: bool = False,
) -> Server:
    """Ask for a server. After the commit call `hub.wakeups.notify(server.id)`.

    A server that is starting already is returned as it is.

    Args:
        user: Whose server.
        actor: Who asks, for the history.
        user_options: What the form or the API gave; None keeps what was given last.
        display_name: What people are to call it; None keeps it.
        scratch_home: For this once it is to be at home in a scratch home.

    Raises:
        InvalidRequestError: It runs, or is stopping, or the user has no unix account here, or may
            have no server of that name, or the options are none the settings have (`OptionsError`).
        TooManyRequestsError: Too many servers are active, or too many starts wait.
    """
    if not await can_have_servers(session, hub, user) and await _every_host_was_heard(session, hub):
        raise InvalidRequestError(
            f"{user.name} has no unix account on this machine, so no server can run as {user.name};"
            " sign in as somebody who has one"
        )
    if not is_routable(hub.settings.places.prefix(user.name, server_name)):
        raise InvalidRequestError(f"No address leads to a server of {user.name}: rename the user")
    at = hub.clock.now()
    row = await named_server(session, hub, user, server_name, actor=actor)
    if row.state in (State.QUEUED, State.STARTING):
        return row
    if (problem := may_start(row)) is not None:
        raise InvalidRequestError(f"{_title(user, row)} cannot be started: {problem}")
    await _check_load(session, hub)
    before = await find_room(session, hub)
    if user_options is not None:
        scratch_home = scratch_home or wants_scratch_home(user_options)
    given = with_scratch_home(row.user_options if user_options is None else user_options, False)
    choice = await choice_of(session, hub, user, given)
    row.profile = choice.profile
    row.user_options = with_scratch_home(choice.options, scratch_home)
    if display_name is not None:
        row.display_name = display_name
    profile = hub.settings.profiles.get(row.profile, PLAIN)
    row.contract, row.csrf = profile.contract, profile.csrf
    row.remove_when_stopped = False
    begin_start(session, row, at=at, actor=actor)
    row.last_activity = at
    await do(session, _USED, {"which": user.id, "at": at})
    join(session, row, before, at=at, actor=actor)
    if before is None:
        await place_server(session, hub, row, user)
    if row.contract == JUPYTERHUB:
        await issue_own_token(session, hub, row, user)
    return row


async def choice_of(session: AsyncSession, hub: Hub, user: User, given: dict[str, Any]) -> Choice:
    """Judge the options of a start of somebody's server.

    Raises:
        OptionsError: The settings have no such thing for this user.
    """
    profiles = hub.settings.profiles
    return choose(given, profiles, await profile_groups(session, hub, user))


async def profile_groups(session: AsyncSession, hub: Hub, user: User) -> frozenset[str]:
    """Return the groups of a user; none of them where no profile asks."""
    if user.id is None or not any(one.groups for one in hub.settings.profiles.values()):
        return frozenset()
    return frozenset((await groups_of(session, [user.id])).get(user.id, ()))


async def named_server(
    session: AsyncSession, hub: Hub, user: User, name: str, *, actor: str
) -> Server:
    """Return a user's server row, made if need be and if there may be one of that name.

    Args:
        actor: Who asks, for the history.

    Raises:
        InvalidRequestError: Named servers are switched off, or the user has as many as may be, or
            it is no name for a new one.
    """
    if name:
        row = await server_to_change(session, user, name)
        if not hub.settings.allow_named_servers:
            raise InvalidRequestError("Named servers are not enabled")
        if row is not None:
            return row
        good_server_name(name)
        await check_named_limit(session, hub, user)
    return await ensure_server(session, user, name, at=hub.clock.now(), actor=actor)


async def check_named_limit(session: AsyncSession, hub: Hub, user: User) -> None:
    """Refuse one more named server.

    Raises:
        InvalidRequestError: The user has as many as may be.
    """
    limit = hub.settings.named_server_limit
    if not limit:
        return
    named = (
        select(func.count())
        .select_from(Server)
        .where(Server.user_id == user.id, col(Server.name) != "")
    )
    if (await session.exec(named)).one() >= limit:
        raise InvalidRequestError(
            f"{user.name} has {limit} named servers, which is as many as may be; remove one first"
        )


async def can_have_servers(session: AsyncSession, hub: Hub, user: User) -> bool:
    """Whether there is a host that could run a server of this user."""
    return bool(user.account) or await shares_accounts(session, hub)


async def _every_host_was_heard(session: AsyncSession, hub: Hub) -> bool:
    """Whether each host has ever said whose servers it runs. A new one may yet run anybody's."""
    hosts = await known_hosts(session, hub.settings)
    return all(host.seen_at is not None for host in hosts)


async def shares_accounts(session: AsyncSession, hub: Hub) -> bool:
    """Whether some host runs everybody's servers as one account of its own."""
    return any(host.accounts == SHARED for host in await known_hosts(session, hub.settings))


async def change_server(
    session: AsyncSession,
    hub: Hub,
    user: User,
    row: Server,
    *,
    actor: str,
    name: str | None = None,
    display_name: str | None = None,
    user_options: dict[str, Any] | None = None,
) -> None:
    """Rename a server that does not run, or change what is kept of it. None leaves it as it is.

    The default server moves to a new name and leaves the default one free.

    Raises:
        InvalidRequestError: It runs, or named servers are switched off, or there are too many, or
            the options are none the settings have.
        ConflictError: There is another of that name.
    """
    if row.state not in ENDED:
        raise InvalidRequestError(f"{_title(user, row)} is active; stop it first")
    at = hub.clock.now()
    if name is not None and name != row.name:
        if not hub.settings.allow_named_servers:
            raise InvalidRequestError("Named servers are not enabled")
        if await find_server(session, user, name) is not None:
            raise ConflictError(f"{user.name} has a server {name!r} already")
        if not row.name:
            await check_named_limit(session, hub, user)
        old, row.name = row.name, name
        if row.display_name == old:
            row.display_name = name
        # Tokens that browsers hold open the old name, which may be another server's next.
        await session.exec(delete(Token).where(col(Token.server_id) == row.id))
        await revoke(session, Revocation(server_id=row.id))
        message = f"the server {old!r} of {user.name} is now called {name!r}"
        tell(session, row, "server.renamed", at=at, actor=actor, message=message)
    if display_name is not None:
        row.display_name = display_name
    if user_options is not None:
        row.user_options = (await choice_of(session, hub, user, user_options)).options
    if display_name is not None or user_options is not None:
        tell(session, row, "server.changed", at=at, actor=actor)
    session.add(row)
    await session.flush()


async def request_removal(
    session: AsyncSession, hub: Hub, row: Server, *, actor: str, reason: str
) -> None:
    """Ask for a named server to end and for its record to go then. Files stay."""
    await request_stop(session, hub, row, actor=actor, reason=reason)
    row.remove_when_stopped = True
    session.add(row)
    if row.state in ENDED:
        await remove_record(session, row, at=hub.clock.now(), actor=actor)


async def request_stop(
    session: AsyncSession, hub: Hub, row: Server, *, actor: str, reason: str
) -> Server:
    """Ask for a server to end. After the commit call `hub.wakeups.notify(server.id)`.

    What has ended, or is ending, is returned as it is. A start under way is cancelled.
    """
    if row.state in ENDED or row.state == State.STOPPING:
        return row
    at = hub.clock.now()
    await begin_stop(session, row, hub.settings.places, at=at, actor=actor, reason=reason)
    if row.host is None:
        await finish(session, row, at=at, actor=actor, exit_=None)
    await session.flush()
    return row


async def request_stop_of(session: AsyncSession, hub: Hub, user: User, *, reason: str) -> list[str]:
    """Have every server of somebody end, by their own wish; return the ids of those that ran."""
    active = select(Server).where(Server.user_id == user.id, col(Server.state).not_in([*ENDED]))
    rows = (await session.exec(active)).all()
    for row in rows:
        await request_stop(session, hub, row, actor=user_actor(user.name), reason=reason)
    return [row.id for row in rows]


async def request_stop_all(
    session: AsyncSession, hub: Hub, *, actor: str, reason: str
) -> list[str]:
    """Ask for every server to end, and return the ids of those that run or are about to."""
    rows = (await session.exec(select(Server).where(col(Server.state).not_in([*ENDED])))).all()
    for row in rows:
        await request_stop(session, hub, row, actor=actor, reason=reason)
    return [row.id for row in rows]


async def _check_load(session: AsyncSession, hub: Hub) -> None:
    if most := hub.settings.active_server_limit:
        active = select(func.count()).select_from(Server).where(col(Server.state).not_in([*ENDED]))
        if (await session.exec(active)).one() >= most:
            hub.measures.refused_start("too-many-users")
            raise TooManyRequestsError(
                f"{most} servers are active, which is as many as may be; try again when one ended"
            )


def _title(user: User, row: Server) -> str:
    return f"the server {row.name!r} of {user.name}" if row.name else f"the server of {user.name}"

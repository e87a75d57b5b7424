"""What people and programs may ask of servers. Changes rows; the reconciler does the work."""

import secrets
from datetime import datetime
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.context import Hub
from carrel_hub.db.models import Server, User
from carrel_hub.errors import InvalidRequestError, TooManyRequestsError
from carrel_hub.spawns.paths import wanted_client_id
from carrel_hub.spawns.states import ENDED, State, may_start
from carrel_hub.spawns.transitions import begin_start, begin_stop, finish


async def find_server(session: AsyncSession, user: User, name: str = "") -> Server | None:
    """Return a user's server of that name; the empty name is the default server."""
    return (
        await session.exec(select(Server).where(Server.user_id == user.id, Server.name == name))
    ).first()


async def ensure_server(
    session: AsyncSession, user: User, name: str = "", *, at: datetime
) -> Server:
    """Return a user's server row, made if need be, with an OAuth client id nobody else has."""
    row = await find_server(session, user, name)
    if row is not None:
        return row
    wanted = wanted_client_id(user.name, name)
    taken = (await session.exec(select(Server.id).where(Server.client_id == wanted))).first()
    client_id = wanted if taken is None else f"{wanted}-{secrets.token_hex(3)}"
    assert user.id is not None  # noqa: S101 - it came from the database
    row = Server(
        id=secrets.token_hex(6), user_id=user.id, name=name, client_id=client_id, created=at
    )
    try:
        async with session.begin_nested():
            session.add(row)
    except IntegrityError:  # another hub process made it in this moment
        existing = await find_server(session, user, name)
        if existing is None:
            raise
        return existing
    return row


async def request_start(
    session: AsyncSession,
    hub: Hub,
    user: User,
    *,
    actor: str,
    server_name: str = "",
    user_options: dict[str, Any] | None = None,
) -> Server:
    """Ask for a server. After the commit call `hub.wakeups.notify(server.id)`.

    A server that is starting already is returned as it is.

    Args:
        user: Whose server.
        actor: Who asks, for the history.
        user_options: What the form or the API gave; None keeps what was given last.

    Raises:
        InvalidRequestError: It runs, or is stopping, or the user has no unix account here.
        TooManyRequestsError: Too many starts are under way.
    """
    if not user.account:
        raise InvalidRequestError(
            f"{user.name} has no unix account on this machine, so no server can run as {user.name};"
            " sign in as somebody who has one"
        )
    at = hub.clock.now()
    row = await ensure_server(session, user, server_name, at=at)
    if row.state in (State.QUEUED, State.STARTING):
        return row
    if (problem := may_start(row)) is not None:
        raise InvalidRequestError(f"{_title(user, row)} cannot be started: {problem}")
    await _check_load(session, hub)
    if user_options is not None:
        row.user_options = user_options
    begin_start(session, row, at=at, actor=actor)
    await session.flush()
    return row


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
        finish(session, row, at=at, actor=actor, exit_=None)
    await session.flush()
    return row


async def request_stop_all(
    session: AsyncSession, hub: Hub, *, actor: str, reason: str
) -> list[str]:
    """Ask for every server to end, and return the ids of those that run or are about to."""
    rows = (await session.exec(select(Server).where(col(Server.state).not_in([*ENDED])))).all()
    for row in rows:
        await request_stop(session, hub, row, actor=actor, reason=reason)
    return [row.id for row in rows]


async def _check_load(session: AsyncSession, hub: Hub) -> None:
    limit = hub.settings.concurrent_spawn_limit
    if not limit:
        return
    pending = (
        await session.exec(
            select(func.count())
            .select_from(Server)
            .where(col(Server.state).in_([State.QUEUED, State.STARTING]))
        )
    ).one()
    if pending >= limit:
        wait = 30 + secrets.randbelow(31)
        raise TooManyRequestsError(
            f"{pending} servers are being started, which is as many as may be at once;"
            f" try again in {wait} seconds",
            headers={"Retry-After": str(wait)},
        )


def _title(user: User, row: Server) -> str:
    return f"the server {row.name!r} of {user.name}" if row.name else f"the server of {user.name}"

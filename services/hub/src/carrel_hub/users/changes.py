"""Changing and deleting users, with what follows from it everywhere."""

import json

from sqlalchemy import String, cast
from sqlmodel import col, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.context import Hub
from carrel_hub.db.models import BrowserSession, OAuthCode, Server, SignInLink, Token, User
from carrel_hub.errors import InvalidRequestError
from carrel_hub.events import record, user_actor
from carrel_hub.rbac import is_about
from carrel_hub.routing.changes import revoke
from carrel_hub.spawns.service import request_stop
from carrel_hub.spawns.states import ENDED
from carrel_hub.users.accounts import find_user
from carrel_hub.users.waiting import wait_for_server
from carrel_shared.wire.routes import Revocation


async def active_servers(session: AsyncSession, user: User) -> list[Server]:
    """Return a user's servers that have not ended."""
    statement = select(Server).where(Server.user_id == user.id, col(Server.state).not_in([*ENDED]))
    return list((await session.exec(statement)).all())


async def rename_user(
    session: AsyncSession, hub: Hub, user: User, name: str, *, actor: str, keep_access: bool
) -> None:
    """Give a user another name. The unix account stays the same.

    Args:
        name: A good name.
        keep_access: Leave tokens and sign-ins as they are. They would act as whoever has the new
            name from now on, so only an administrator decides that.

    Raises:
        InvalidRequestError: The name is taken, or a server of the user runs under the old one.
    """
    if await find_user(session, name) is not None:
        raise InvalidRequestError(f"User {name} already exists, usernames must be unique")
    if await active_servers(session, user):
        raise InvalidRequestError(f"{user.name} has a server that runs; stop it before renaming")
    old, user.name = user.name, name
    session.add(user)
    await session.flush()
    await _end_tokens_about(session, name)
    if not keep_access:
        await forget_access(session, user)
    record(
        session,
        "user.renamed",
        actor,
        user_actor(name),
        at=hub.clock.now(),
        message=f"{old} is now called {name}",
    )
    await revoke(session, Revocation(user=old))


async def _end_tokens_about(session: AsyncSession, name: str) -> None:
    """End tokens that are about somebody of a name nobody had: they were made for another."""
    written = json.dumps(f"={name}")[1:-1]
    found = select(Token).where(cast(col(Token.scopes), String).contains(written, autoescape=True))
    for token in (await session.exec(found)).all():
        if any(is_about(text, name) for text in token.scopes):
            await session.delete(token)
            await revoke(session, Revocation(token_hash=token.token_hash))


async def set_admin(
    session: AsyncSession, hub: Hub, user: User, admin: bool, *, actor: str
) -> None:
    """Make a user an administrator, or one no longer, which every proxy hears of."""
    if user.admin == admin:
        return
    user.admin = admin
    session.add(user)
    kind = "user.made_admin" if admin else "user.no_longer_admin"
    record(session, kind, actor, user_actor(user.name), at=hub.clock.now())
    if not admin:
        await revoke(session, Revocation(user=user.name, ask_first=True))


async def forget_access(session: AsyncSession, user: User) -> None:
    """End every token and sign-in of a user. Proxies have to be told as well."""
    for table in (Token, BrowserSession, OAuthCode, SignInLink):
        await session.exec(delete(table).where(col(table.user_id) == user.id))


async def stop_servers(hub: Hub, user: User, *, actor: str, reason: str) -> None:
    """Stop every server of a user, and wait for their end up to `slow_stop_seconds` in all."""
    async with hub.database.write() as session:
        rows = await active_servers(session, user)
        for row in rows:
            await request_stop(session, hub, row, actor=actor, reason=reason)
    if not rows:
        return
    await hub.wakeups.notify(*(row.id for row in rows))
    until = hub.clock.monotonic() + hub.settings.slow_stop_seconds
    for row in rows:
        left = max(until - hub.clock.monotonic(), 0)
        await wait_for_server(hub, row.id, lambda now: now.state in ENDED, seconds=left)


async def begin_deletion(session: AsyncSession, hub: Hub, user: User, *, actor: str) -> None:
    """End all access of somebody who is about to be deleted.

    While their servers end they could start others, and so never be deleted.
    """
    at = hub.clock.now()
    await forget_access(session, user)
    record(session, "user.deletion_requested", actor, user_actor(user.name), at=at)
    await revoke(session, Revocation(user=user.name))


async def delete_user(session: AsyncSession, hub: Hub, user: User, *, actor: str) -> None:
    """Delete a user with everything that is theirs here. Files and the unix account stay.

    Raises:
        InvalidRequestError: A server of theirs has not ended.
    """
    if await active_servers(session, user):
        raise InvalidRequestError(
            f"A server of {user.name} is still stopping; try again in a moment"
        )
    name = user.name
    await session.exec(delete(User).where(col(User.id) == user.id))
    session.expunge(user)
    record(session, "user.deleted", actor, user_actor(name), at=hub.clock.now())
    await revoke(session, Revocation(user=name))

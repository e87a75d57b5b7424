"""User rows, made when somebody is first let in."""

from datetime import datetime

from sqlalchemy.exc import IntegrityError
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.db.asking import ask_one, by_key
from carrel_hub.db.models import User
from carrel_hub.events import HUB_ACTOR, record, user_actor

USER = by_key(User, "id")
"""A user to look at, by id."""

_NAMED = by_key(User, "name")


async def see_user(session: AsyncSession, name: str) -> User | None:
    """Return the user of that (normalised) name to look at, and not to change."""
    return await ask_one(session, _NAMED, key=name)


async def find_user(session: AsyncSession, name: str) -> User | None:
    """Return the user of that (normalised) name."""
    return (await session.exec(select(User).where(User.name == name))).first()


async def get_or_create_user(
    session: AsyncSession,
    name: str,
    *,
    at: datetime,
    account: str | None = None,
    admin: bool = False,
    console: bool = False,
    actor: str = HUB_ACTOR,
) -> User:
    """Return the row of `name`, made if need be.

    A row that exists gains what is asked for and loses nothing: `account` is stored when given,
    `admin` and `console` are set when true.

    Args:
        name: Normalised already.
        at: The injected clock's time.
        account: The unix account that the user's servers run as.
        console: The person at the console vouches for this user.
        actor: Who is behind it, for the history.
    """
    user = await find_user(session, name)
    if user is None:
        user = User(name=name, account=account, admin=admin, console=console, created=at)
        try:
            async with session.begin_nested():
                session.add(user)
        except IntegrityError:  # another hub process made it in this moment
            user = (await session.exec(select(User).where(User.name == name))).one()
        else:
            record(session, "user.created", actor, user_actor(name), at=at)
            if admin:
                record(session, "user.made_admin", actor, user_actor(name), at=at)
            return user
    if account is not None and user.account != account:
        record(
            session,
            "user.account_changed",
            actor,
            user_actor(name),
            at=at,
            message=f"servers of {name} now run as the unix account {account}",
        )
        user.account = account
    if admin and not user.admin:
        record(session, "user.made_admin", actor, user_actor(name), at=at)
        user.admin = True
    user.console = user.console or console
    session.add(user)
    await session.flush()
    return user

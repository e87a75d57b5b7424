"""Users made by an administrator, many at once."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.auth.names import InvalidNameError
from carrel_hub.auth.rules import NEVER
from carrel_hub.auth.settings import AuthSettings
from carrel_hub.db.models import AgentHost, User
from carrel_hub.errors import ConflictError, InvalidRequestError
from carrel_hub.events import record, user_actor

_CHUNK = 500


def good_name(raw: object, settings: AuthSettings) -> str:
    """Return the spelling of a name under which a user may be made.

    Raises:
        InvalidRequestError: It cannot be a user's name.
    """
    try:
        if not isinstance(raw, str):
            raise InvalidNameError("a user name is text")
        if raw != raw.strip():  # a form is trimmed, a program means what it says
            raise InvalidNameError("a user name has no space around it")
        name = settings.name_of(raw)
    except InvalidNameError as error:
        raise InvalidRequestError(f"Invalid username: {error}") from error
    if name in NEVER:
        raise InvalidRequestError(f"Invalid username: nothing here ever runs as {name}")
    return name


async def existing_names(session: AsyncSession, names: Sequence[str]) -> set[str]:
    """Return those of `names` that are users' already."""
    found: set[str] = set()
    for start in range(0, len(names), _CHUNK):
        chunk = names[start : start + _CHUNK]
        found.update((await session.exec(select(User.name).where(col(User.name).in_(chunk)))).all())
    return found


async def create_users(
    session: AsyncSession,
    names: Sequence[str],
    *,
    configured: Sequence[str],
    admin: bool,
    at: datetime,
    actor: str,
) -> list[User]:
    """Make users who do not exist yet.

    Their servers run as the unix account of the same name, as when they sign in with its password,
    where a host can run it.

    Args:
        names: Good names, each once.
        configured: The hosts the hub may call.
        actor: Who asks, for the history.

    Raises:
        ConflictError: Somebody else made one of them in this moment.
    """
    hosts = select(AgentHost.accounts).where(col(AgentHost.name).in_(list(configured)))
    accounts = set((await session.exec(hosts)).all())
    users = [
        User(
            name=name,
            admin=admin,
            account=name if "any" in accounts or name in accounts else None,
            created=at,
        )
        for name in names
    ]
    session.add_all(users)
    try:
        await session.flush()
    except IntegrityError as error:
        raise ConflictError("One of these users was made in this moment; try again") from error
    for name in names:
        record(session, "user.created", actor, user_actor(name), at=at)
        if admin:
            record(session, "user.made_admin", actor, user_actor(name), at=at)
    return users

"""When a token was last used, noted now and then, beside the request and never in its way."""

import contextlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import bindparam
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import col, update

from carrel_hub.db.models import Service, Token, User

if TYPE_CHECKING:
    from carrel_hub.context import Hub

log = structlog.get_logger(__name__)

RESOLUTION = timedelta(seconds=30)
SERVER_NOTE = "Server at "
"""How the note of a server's own token begins: its calls are not its user's activity."""

_OF_TOKEN = (
    update(Token).where(col(Token.id) == bindparam("which")).values(last_activity=bindparam("at"))
)
_OF_USER = (
    update(User).where(col(User.id) == bindparam("which")).values(last_activity=bindparam("at"))
)


@dataclass(slots=True)
class TokenUses:
    """Uses that are yet to be written: those that come while one transaction runs share the next.

    Attributes:
        tokens: When each was used, by its id.
        users: The same for those whose activity that is.
    """

    tokens: dict[int, datetime] = field(default_factory=dict)
    users: dict[int, datetime] = field(default_factory=dict)
    writing: bool = False


def note_use(hub: "Hub", token: Token, owner: User | Service) -> None:
    """Remember in the background that a token was used, at most every `RESOLUTION`.

    Args:
        token: As it is remembered for the next request, too.
    """
    now, uses = hub.clock.now(), hub.token_uses
    if token.last_activity is not None and now - token.last_activity < RESOLUTION:
        return
    if token.id is None or owner.id is None:
        return
    token.last_activity = now
    uses.tokens[token.id] = now
    if isinstance(owner, User) and not token.note.startswith(SERVER_NOTE):
        uses.users[owner.id] = now
    if not uses.writing:
        with contextlib.suppress(RuntimeError):  # the hub is about to end
            hub.tasks.start(_write(hub, uses), name="note-token-use")
            uses.writing = True


async def _write(hub: "Hub", uses: TokenUses) -> None:
    try:
        while uses.tokens:
            tokens, users = uses.tokens, uses.users
            uses.tokens, uses.users = {}, {}
            async with hub.database.write() as db:
                connection = await db.connection()
                for statement, noted in ((_OF_TOKEN, tokens), (_OF_USER, users)):
                    rows = [{"which": key, "at": at} for key, at in noted.items()]
                    if rows:
                        await connection.execute(statement, rows)
    except SQLAlchemyError as error:  # a later use will be noted
        log.warning("token_use_not_noted", reason=type(error).__name__)
    finally:
        uses.writing = False

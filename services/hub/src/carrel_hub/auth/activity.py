"""When a token was last used, noted now and then, beside the request.

A token's first use is noted before the request goes on: whoever handed it out may look at once.
"""

import asyncio
import contextlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import bindparam
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import col, update

from carrel_hub.db.asking import do
from carrel_hub.db.models import Service, Token, User

if TYPE_CHECKING:
    from carrel_hub.context import Hub

log = structlog.get_logger(__name__)

RESOLUTION = timedelta(seconds=30)
FIRST_USE_SECONDS = 1.0
"""How long a request waits at most for the note of its token's first use."""
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
    writer: asyncio.Task[None] | None = None


async def note_use(hub: "Hub", token: Token, owner: User | Service) -> None:
    """Note that a token was used, at most every `RESOLUTION`; return at once but for the first use.

    Args:
        token: As it is remembered for the next request, too.
    """
    now, before, uses = hub.clock.now(), token.last_activity, hub.token_uses
    if before is not None and now - before < RESOLUTION:
        return
    if token.id is None or owner.id is None:
        return
    token.last_activity = now
    uses.tokens[token.id] = now
    if isinstance(owner, User) and not token.note.startswith(SERVER_NOTE):
        uses.users[owner.id] = now
    if uses.writer is None:
        with contextlib.suppress(RuntimeError):  # the hub is about to end
            uses.writer = hub.tasks.start(_write(hub, uses), name="note-token-use")
    if before is None and uses.writer is not None:
        await asyncio.wait([uses.writer], timeout=FIRST_USE_SECONDS)


async def _write(hub: "Hub", uses: TokenUses) -> None:
    try:
        while uses.tokens:
            tokens, users = uses.tokens, uses.users
            uses.tokens, uses.users = {}, {}
            async with hub.database.write() as db:
                for statement, noted in ((_OF_TOKEN, tokens), (_OF_USER, users)):
                    rows = [{"which": key, "at": at} for key, at in noted.items()]
                    if rows:
                        await do(db, statement, *rows)
    except SQLAlchemyError as error:  # a later use will be noted
        log.warning("token_use_not_noted", reason=type(error).__name__)
    finally:
        uses.writer = None

"""When a token was last used, noted now and then, beside the request and never in its way."""

import contextlib
from datetime import timedelta

from sqlmodel import col, update

from carrel_hub.context import Hub
from carrel_hub.db.models import Service, Token, User

RESOLUTION = timedelta(seconds=30)
SERVER_NOTE = "Server at "
"""How the note of a server's own token begins: its calls are not its user's activity."""


def note_use(hub: Hub, token: Token, owner: User | Service) -> None:
    """Remember in the background that a token was used, at most every `RESOLUTION`."""
    now = hub.clock.now()
    if token.last_activity is not None and now - token.last_activity < RESOLUTION:
        return

    async def write() -> None:
        async with hub.database.write() as db:
            await db.exec(update(Token).where(col(Token.id) == token.id).values(last_activity=now))
            if isinstance(owner, User) and not token.note.startswith(SERVER_NOTE):
                mine = update(User).where(col(User.id) == owner.id)
                await db.exec(mine.values(last_activity=now))

    with contextlib.suppress(RuntimeError):  # the hub is about to end
        hub.tasks.start(write(), name="note-token-use")

"""The token a server acts with, where it is made for JupyterHub.

It follows from the server's secret and the hub's signing key, so that asking an agent again needs
nothing that is stored in clear; the database holds its hash, as of every token.
"""

from sqlalchemy import bindparam, delete
from sqlalchemy import select as columns
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.auth.activity import SERVER_NOTE
from carrel_hub.auth.signing import signer_for
from carrel_hub.auth.tokens import issue_token
from carrel_hub.context import Hub
from carrel_hub.db.asking import ask_one, do
from carrel_hub.db.models import Server, Token, User
from carrel_hub.db.prepared import Prepared
from carrel_hub.events import HUB_ACTOR
from carrel_hub.rbac import resolve, roles
from carrel_hub.spawns.paths import server_prefix

_PURPOSE = "server-token"

_OF_SERVER = col(Token.server_id) == bindparam("server_id")
_OWN: Prepared[int] = Prepared(
    columns(col(Token.id)).where(_OF_SERVER, col(Token.client_id).is_(None)).limit(1), int
)
_END = delete(Token).where(_OF_SERVER)


def own_token(hub: Hub, row: Server) -> str:
    """Return the token of a server's present generation (43 characters)."""
    return signer_for(hub.settings.state_dir).mac(_PURPOSE, row.id, row.secret)


async def issue_own_token(session: AsyncSession, hub: Hub, row: Server, user: User) -> None:
    """Make the token of a generation that is about to start good (contract 3.4)."""
    granted = hub.settings.role_book.scopes(roles.SERVER)
    mine = f"{user.name}/{row.name}"
    # Only its door is made concrete: its user may be renamed.
    scopes = sorted(
        scope.replace("!server", f"!server={mine}") if scope.endswith("!server") else scope
        for scope in {*granted, "users:activity!user"}
    )
    await issue_token(
        session,
        hub,
        user,
        actor=HUB_ACTOR,
        scopes=[scope for scope in scopes if resolve([scope], user.name)],
        note=f"{SERVER_NOTE}{server_prefix(hub.settings.base_url, user.name, row.name)}",
        secret=own_token(hub, row),
        server_id=row.id,
    )


async def end_own_token(session: AsyncSession, row: Server) -> None:
    """End the token of a server that has ended, and what its OAuth client was given."""
    if await ask_one(session, _OWN, server_id=row.id) is not None:
        await do(session, _END, {"server_id": row.id})

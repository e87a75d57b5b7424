"""The OAuth clients: one for each notebook server, which the proxy acts as."""

from dataclasses import dataclass

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.db.models import Server, User
from carrel_hub.rbac import Actor, Resource, Scope, may
from carrel_hub.spawns.paths import server_prefix


@dataclass(frozen=True, slots=True)
class ServerClient:
    """A server as OAuth client.

    Attributes:
        owner: The name of its user.
        redirect_uri: The one address that answers go to.
    """

    server_id: str
    client_id: str
    owner: str
    server_name: str
    redirect_uri: str

    def opens_to(self, actor: Actor) -> bool:
        """Whether somebody has the right to this server."""
        return may(actor, Scope.ACCESS_SERVERS, Resource(self.owner, self.server_name))


async def find_client(db: AsyncSession, base_url: str, client_id: str) -> ServerClient | None:
    """Return the client of that id."""
    return await _find(db, base_url, Server.client_id == client_id)


async def client_of_server(db: AsyncSession, base_url: str, server_id: str) -> ServerClient | None:
    """Return the client of that server."""
    return await _find(db, base_url, Server.id == server_id)


async def _find(db: AsyncSession, base_url: str, condition: bool) -> ServerClient | None:
    row = (
        await db.exec(
            select(Server, User).join(User, col(User.id) == col(Server.user_id)).where(condition)
        )
    ).first()
    if row is None:
        return None
    server, owner = row
    return ServerClient(
        server_id=server.id,
        client_id=server.client_id,
        owner=owner.name,
        server_name=server.name,
        redirect_uri=f"{server_prefix(base_url, owner.name, server.name)}oauth_callback",
    )

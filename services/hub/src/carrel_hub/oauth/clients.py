"""The OAuth clients: one for each notebook server, which the proxy acts as."""

from dataclasses import dataclass

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.db.models import Server, User
from carrel_hub.places import Places
from carrel_hub.rbac import Actor, Resource, Scope, may


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


async def find_client(db: AsyncSession, places: Places, client_id: str) -> ServerClient | None:
    """Return the client of that id."""
    return await _find(db, places, Server.client_id == client_id)


async def client_of_server(db: AsyncSession, places: Places, server_id: str) -> ServerClient | None:
    """Return the client of that server."""
    return await _find(db, places, Server.id == server_id)


async def _find(db: AsyncSession, places: Places, condition: bool) -> ServerClient | None:
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
        redirect_uri=f"{places.url(owner.name, server.name)}oauth_callback",
    )

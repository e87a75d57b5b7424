"""The OAuth clients: one for each notebook server, and one for each service that signs people in.

Of a plain server the proxy is the client. A server that is made for JupyterHub, and a service, have
a secret of their own: the token that they call the API with.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.db.models import Server, Service, Token, User
from carrel_hub.events import server_subject, service_actor
from carrel_hub.places import Places
from carrel_hub.rbac import Actor, Resource, Scope, ServiceResource, may
from carrel_hub.spawns.profiles import JUPYTERHUB


@dataclass(frozen=True, slots=True)
class Client:
    """An OAuth client.

    Attributes:
        redirect_uri: The one address that answers go to.
        resource: What it opens.
        owner: The user whose server it is; empty for a service.
        server_id, service_id: Of what it is the client; one of them.
        secret_hash: SHA-256 (hex) of its secret; empty where the proxy is the client.
        allowed_scopes: What it may ask for beside knowing who somebody is.
        no_confirm: Nobody is asked.
    """

    client_id: str
    redirect_uri: str
    resource: Resource | ServiceResource
    owner: str = ""
    server_id: str | None = None
    service_id: int | None = None
    secret_hash: str = field(default="", repr=False)
    allowed_scopes: Sequence[str] = ()
    no_confirm: bool = False

    @property
    def is_proxys(self) -> bool:
        """Whether the proxy signs people in for it."""
        return not self.secret_hash

    @property
    def title(self) -> str:
        """What it is, in words."""
        if isinstance(self.resource, ServiceResource):
            return f"the service {self.resource.name}"
        named = f" “{self.resource.server}”" if self.resource.server else ""
        return f"the server{named} of {self.owner}"

    @property
    def access_scope(self) -> str:
        """The scope that opens it and nothing else."""
        kind = Scope.ACCESS_SERVICES if self.service_id is not None else Scope.ACCESS_SERVERS
        return f"{kind}!{self.resource.target}"

    @property
    def subject(self) -> str:
        """What it is in the history."""
        if self.server_id is not None:
            return server_subject(self.server_id)
        assert isinstance(self.resource, ServiceResource)  # noqa: S101 - one of the two
        return service_actor(self.resource.name)

    def opens_to(self, actor: Actor) -> bool:
        """Whether somebody has the right to open it."""
        kind = Scope.ACCESS_SERVICES if self.service_id is not None else Scope.ACCESS_SERVERS
        return may(actor, kind, self.resource)


async def find_client(db: AsyncSession, places: Places, client_id: str) -> Client | None:
    """Return the client of that id, if anybody can sign in to it now."""
    service = (await db.exec(select(Service).where(Service.client_id == client_id))).first()
    if service is not None:
        return _of_service(service) if service.secret_hash else None
    return await _of_server(db, places, Server.client_id == client_id)


async def client_of_server(db: AsyncSession, places: Places, server_id: str) -> Client | None:
    """Return the client of that server."""
    return await _of_server(db, places, Server.id == server_id)


def _of_service(service: Service) -> Client:
    return Client(
        client_id=service.client_id or "",
        redirect_uri=service.redirect_uri or "",
        resource=ServiceResource(service.name),
        service_id=service.id,
        secret_hash=service.secret_hash,
        allowed_scopes=service.allowed_scopes,
        no_confirm=service.no_confirm,
    )


async def _of_server(db: AsyncSession, places: Places, condition: bool) -> Client | None:
    row = (
        await db.exec(
            select(Server, User).join(User, col(User.id) == col(Server.user_id)).where(condition)
        )
    ).first()
    if row is None:
        return None
    server, owner = row
    secret_hash = ""
    if server.contract == JUPYTERHUB:
        own = select(Token.token_hash).where(
            Token.server_id == server.id, col(Token.client_id).is_(None)
        )
        secret_hash = (await db.exec(own)).first() or ""
        if not secret_hash:  # its client ends with it
            return None
    return Client(
        client_id=server.client_id,
        redirect_uri=f"{places.url(owner.name, server.name)}oauth_callback",
        resource=Resource(owner.name, server.name),
        owner=owner.name,
        server_id=server.id,
        secret_hash=secret_hash,
    )

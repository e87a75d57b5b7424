"""Finding the server a page is about, for somebody who may know of it."""

from dataclasses import dataclass

from carrel_hub.auth.names import InvalidNameError, normalise_name
from carrel_hub.auth.subjects import Subject
from carrel_hub.context import Hub
from carrel_hub.db.models import Server, User
from carrel_hub.errors import InvalidRequestError, NotFoundError
from carrel_hub.rbac import Resource, Scope, authorise
from carrel_hub.rbac.decisions import NOT_FOUND
from carrel_hub.spawns.naming import good_server_name
from carrel_hub.spawns.paths import escape_name
from carrel_hub.spawns.service import can_have_servers, find_server
from carrel_hub.users.accounts import find_user

NAMED_SERVERS_OFF = "Named servers are switched off here; everybody has one server."


@dataclass(frozen=True, slots=True)
class Place:
    """A server, or where one would be.

    Attributes:
        owner: Whose it is.
        name: Its name; the empty name is the default server.
        row: None when it was never started.
        possible: Some host could run it.
    """

    owner: User
    name: str
    row: Server | None
    possible: bool

    def url(self, hub: Hub) -> str:
        """Return where browsers find the server."""
        return hub.settings.places.url(self.owner.name, self.name)

    def page(self, hub: Hub, kind: str) -> str:
        """Return the path of the hub's page of that kind (`spawn`, `spawn-pending`, `stop`)."""
        path = f"{hub.settings.hub_prefix}{kind}/{escape_name(self.owner.name)}"
        return f"{path}/{escape_name(self.name)}" if self.name else path


async def find_place(hub: Hub, subject: Subject, scope: Scope, owner: str, name: str = "") -> Place:
    """Return the place of a server that `subject` may do `scope` with.

    Raises:
        ForbiddenError: That permission is not held at all.
        NotFoundError: There is no such user, or none `subject` may know of.
        InvalidRequestError: Named servers are switched off, or no server can have that name.
    """
    try:
        owner = normalise_name(owner)
    except InvalidNameError as error:
        raise NotFoundError(NOT_FOUND) from error
    authorise(subject, scope, Resource(owner, name))
    async with hub.database.read() as db:
        user = await find_user(db, owner)
        if user is None:
            raise NotFoundError(NOT_FOUND)
        row = await find_server(db, user, name)
        possible = await can_have_servers(db, hub, user)
    if name and row is None:
        if not hub.settings.allow_named_servers:
            raise InvalidRequestError(NAMED_SERVERS_OFF)
        if scope is not Scope.START_SERVERS:
            raise NotFoundError(NOT_FOUND)
        good_server_name(name)
    return Place(user, name, row, possible)

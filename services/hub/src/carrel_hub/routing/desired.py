"""What every proxy's table should hold, from rows. Pure."""

from collections.abc import Iterable

from carrel_hub.db.models import Server
from carrel_hub.settings import HubSettings
from carrel_hub.spawns.paths import server_prefix
from carrel_shared.addresses import TcpAddress, parse_address
from carrel_shared.wire.routes import Access, Route


def hub_route(settings: HubSettings) -> Route:
    """Return the default route: whatever belongs to nobody else is the hub's."""
    address = parse_address(settings.listen)
    target = f"http://{address}" if isinstance(address, TcpAddress) else str(address)
    return Route(prefix=settings.base_url, targets=[target])


def server_route(server: Server, user: str, base_url: str) -> Route:
    """Return the route of a server that answers.

    Raises:
        ValueError: If it has no address.
    """
    if server.address is None:
        raise ValueError(f"server {server.id} has no address")
    return Route(
        prefix=server_prefix(base_url, user, server.name),
        targets=[server.address],
        peer_uid=server.peer_uid,
        access=Access(server_id=server.id, client_id=server.client_id, secret=server.secret),
        server=True,
    )


def desired_routes(settings: HubSettings, servers: Iterable[tuple[Server, str]]) -> list[Route]:
    """Return the whole table: the hub's own route, and each routed server's.

    Args:
        servers: Servers with their users' names. Those without a route number have no route.
    """
    return [
        hub_route(settings),
        *(
            server_route(server, user, settings.base_url)
            for server, user in servers
            if server.route_number is not None and server.address is not None
        ),
    ]


def origin(settings: HubSettings) -> str:
    """Return what all routes are built from: when it changes, every proxy needs the whole table."""
    return f"{settings.base_url} {settings.listen}"

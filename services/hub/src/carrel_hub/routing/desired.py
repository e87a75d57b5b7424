"""What every proxy's table should hold, from rows. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from carrel_hub.db.models import Server, Service
from carrel_hub.places import Places
from carrel_hub.services.fields import service_target
from carrel_hub.services.models import service_prefix
from carrel_hub.settings import HubSettings
from carrel_hub.spawns.paths import is_routable
from carrel_hub.spawns.profiles import JUPYTERHUB
from carrel_shared.addresses import TcpAddress, parse_address
from carrel_shared.wire.routes import Access, Route


def own_target(settings: HubSettings) -> str:
    """Return where proxies reach this hub process."""
    address = parse_address(settings.advertise or settings.listen)
    return f"http://{address}" if isinstance(address, TcpAddress) else str(address)


def hub_routes(settings: HubSettings, targets: Sequence[str] = ()) -> list[Route]:
    """Return the default routes: whatever belongs to nobody else is the hub's.

    With one domain per user that is so on all of their hosts too, where the hub has no pages and
    sends people to its own.

    Args:
        targets: Where proxies reach each replica; only this process without any.
    """
    to = list(targets) or [own_target(settings)]
    places = settings.places
    hosts = dict.fromkeys((places.hub_host, places.user_hosts))
    routes = [Route(host=host, prefix=settings.base_url, targets=to) for host in hosts]
    if places.api_host:
        routes.append(Route(host=places.api_host, prefix=settings.hub_prefix, targets=to))
    return routes


def server_route(server: Server, user: str, places: Places, relay: str | None = None) -> Route:
    """Return the route of a server that answers.

    One that is made for JupyterHub checks its visitors itself.

    Args:
        relay: Where its host's relay is, on another machine than the proxies'. That one knows the
            server's socket and checks who is behind it.

    Raises:
        ValueError: If it has no address.
    """
    if server.address is None:
        raise ValueError(f"server {server.id} has no address")
    checks_itself = server.contract == JUPYTERHUB
    access = Access(
        server_id=server.id,
        client_id=server.client_id,
        secret=server.secret,
        csrf="app" if server.csrf == "app" else "origin",
        origin=places.origin(user),
        hub_origin=places.hub_origin,
    )
    return Route(
        host=places.host(user),
        prefix=places.prefix(user, server.name),
        targets=[server.address if relay is None else relay],
        peer_uid=server.peer_uid if relay is None else None,
        host_id=server.host if relay is not None else None,
        access=None if checks_itself else access,
        stock_client_id=server.client_id if checks_itself else "",
        server=True,
    )


def service_route(
    service: Service, places: Places, relays: Mapping[str, str] = MappingProxyType({})
) -> Route | None:
    """Return the route of a service, which checks its visitors itself.

    None when it listens nowhere, or on a host that has not joined: its url is a port of that one.

    Args:
        relays: Of hosts on other machines.
    """
    relay = relays.get(service.host)
    if service.url is None or (service.host and relay is None):
        return None
    return Route(
        host=places.service_host(service.name),
        prefix=service_prefix(places.base_url, service.name),
        targets=[relay or service_target(service.url)],
        host_id=service.host if relay is not None else None,
        stock_client_id=service.client_id or "",
        server=True,
    )


def desired_routes(
    settings: HubSettings,
    servers: Iterable[tuple[Server, str]],
    services: Iterable[Service] = (),
    hubs: Sequence[str] = (),
    relays: Mapping[str, str] = MappingProxyType({}),
) -> list[Route]:
    """Return the whole table: the hub's own route, each service's, and each routed server's.

    Args:
        servers: Servers with their users' names. Those without a route number have no route.
        services: Those that can be reached have a route.
        hubs: Where proxies reach each replica.
        relays: Of hosts on other machines.
    """
    of_services = (service_route(one, settings.places, relays) for one in services)
    of_servers = (
        server_route(server, user, settings.places, relays.get(server.host or ""))
        for server, user in servers
        if server.route_number is not None and server.address is not None
    )
    found = [route for route in of_services if route is not None]
    return [
        *hub_routes(settings, hubs),
        *(route for route in (*found, *of_servers) if is_routable(route.prefix)),
    ]


def origin(settings: HubSettings) -> str:
    """Return what all routes are built from: when it changes, every proxy needs the whole table.

    The hubs' own addresses are not in it: they come and go with the replicas.
    """
    places = settings.places
    parts = (settings.base_url, places.hub_origin, places.api_host)
    return " ".join(filter(None, parts))

"""Whom the agent of a host calls, and by which credentials."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from carrel_agent.errors import SetupError
from carrel_agent.fleet.credentials import identity_in
from carrel_agent.fleet.relay import RelayRoutes
from carrel_agent.fleet.renewal import Renewal
from carrel_agent.settings import AgentSettings
from carrel_shared.addresses import TcpAddress, http_client, parse_address, parse_addresses
from carrel_shared.calls import PlainClient
from carrel_shared.clock import SystemClock
from carrel_shared.failover import service_client
from carrel_shared.fleet import HUB_NAME, FleetFiles, RenewedContext, fleet_client, host_identity

if TYPE_CHECKING:
    import httpx


def check_credentials(settings: AgentSettings) -> None:
    """See that the certificate is this host's: a host that was renamed is another one.

    Raises:
        SetupError: It is another host's, or cannot be used.
    """
    if settings.fleet is None:
        return
    try:
        found = identity_in(settings.fleet.cert)
        settings.fleet.server_context()
    except (OSError, ValueError) as error:
        raise SetupError(
            f"fleet_cert {settings.fleet.cert} cannot be used ({error}); join anew with"
            " `carrel-agent join --again`"
        ) from error
    if found != host_identity(settings.name):
        raise SetupError(
            f"name = {settings.name!r}, and the certificate {settings.fleet.cert} is for"
            f" {found or 'nobody'}: a host keeps the name it joined with. Set it back, or have it"
            " leave and join as another"
        )


def hub_client(settings: AgentSettings) -> "httpx.AsyncClient | PlainClient":
    """Return what calls the hub."""
    if settings.fleet is not None:
        return joined_client(settings, settings.fleet)
    addresses = parse_addresses(settings.hub_url)
    return PlainClient(addresses[0]) if len(addresses) == 1 else service_client(settings.hub_url)


def joined_client(settings: AgentSettings, files: FleetFiles) -> "httpx.AsyncClient":
    """Return what calls the hub from a host that has joined it."""
    addresses = parse_addresses(settings.hub_url)
    there = [address for address in addresses if isinstance(address, TcpAddress)]
    return fleet_client(files, there, HUB_NAME)


@asynccontextmanager
async def relay_client(settings: AgentSettings) -> AsyncIterator[RelayRoutes | None]:
    """Yield what tells this host's relay its routes; None where it has none."""
    if settings.relay is None or settings.relay_key is None:
        yield None
        return
    async with http_client(parse_address(settings.relay)) as client:
        yield RelayRoutes(client, settings.relay_key.get_secret_value())


def renewal_of(
    settings: AgentSettings,
    hub: "httpx.AsyncClient | PlainClient",
    listening: RenewedContext,
    group: int | None,
) -> Renewal:
    """Return what keeps this host's certificate good."""
    assert settings.fleet is not None  # noqa: S101 - the listener has it
    assert not isinstance(hub, PlainClient)  # noqa: S101 - nor does the hub know it without
    return Renewal(
        settings.fleet,
        name=settings.name,
        hub=hub,
        key=settings.hub_key.get_secret_value(),
        listening=listening,
        group=group,
        clock=SystemClock(),
    )

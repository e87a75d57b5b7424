"""`carrel-agent leave`: take this machine from the hub's hosts."""

import asyncio
import contextlib
from pathlib import Path

import httpx

from carrel_agent.fleet.connections import joined_client
from carrel_agent.fleet.places import HostPlaces
from carrel_agent.fleet.units import UNIT_DIRECTORY, remove_units
from carrel_agent.settings import AgentSettings
from carrel_shared.fleet_joining import JoinError, said
from carrel_shared.service_auth import service_headers
from carrel_shared.settings import SettingsError, load_settings


def leave(
    places: HostPlaces, *, force: bool = False, unit_directory: Path = UNIT_DIRECTORY
) -> None:
    """Tell the hub, stop the services, and remove credentials and settings.

    Args:
        force: Remove what is here even if the hub refuses or does not answer.

    Raises:
        JoinError: The hub refuses, or does not answer, or nothing has joined here.
    """
    if not places.agent_settings.exists():
        raise JoinError(f"no host has joined here: there is no {places.agent_settings}")
    try:
        asyncio.run(_tell_hub(places))
    except JoinError:
        if not force:
            raise
    try:
        remove_units(unit_directory)
        for path in (
            places.agent_settings,
            places.relay_settings,
            places.fleet.cert,
            places.fleet.ca,
        ):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            places.fleet.cert.parent.rmdir()
    except OSError as error:
        raise JoinError(f"{error.filename}: {error.strerror}") from error


async def _tell_hub(places: HostPlaces) -> None:
    try:
        settings = load_settings(AgentSettings, places.agent_settings, {})
    except SettingsError as error:
        raise JoinError(f"{error}; --force removes what is here all the same") from error
    if settings.fleet is None:
        raise JoinError(f"{places.agent_settings}: this agent did not join; its hub's settings do")
    key = settings.hub_key.get_secret_value()
    path = f"/internal/v1/agents/{settings.name}/leave"
    async with joined_client(settings, settings.fleet) as client:
        try:
            reply = await client.post(path, headers=service_headers(key))
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise JoinError(
                f"the hub does not answer ({reason}); with --force this host forgets it all the"
                " same, and an administrator removes it there"
            ) from error
    if reply.status_code != 204:
        raise JoinError(f"the hub refuses: {said(reply)}")

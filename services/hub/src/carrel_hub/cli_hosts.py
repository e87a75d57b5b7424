"""`carrel-hub token agent NAME`: let a host join. `carrel-hub host`: see and keep the hosts."""

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from carrel_hub.cli import EXIT_OK, CommandError, in_plain_words, load_hub_settings
from carrel_hub.cli_hub import opened_hub

if TYPE_CHECKING:
    from sqlmodel.ext.asyncio.session import AsyncSession

    from carrel_hub.context import Hub

ACTIONS = {
    "drain": "place nothing new there",
    "take-in": "place servers there again",
    "evacuate": "drain it, and stop what runs there",
    "accept": "let the other machine be this host that was refused with its credentials",
    "remove": "take it away; its credentials are void at once",
}


def add_host_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `host` with its actions."""
    host = commands.add_parser("host", help="see, drain, empty or remove compute hosts")
    actions = host.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="show every host, with its state and what is wrong with it")
    for name, help_ in ACTIONS.items():
        action = actions.add_parser(name, help=help_)
        action.add_argument("name", metavar="NAME", help="the host")
        if name == "remove":
            action.add_argument(
                "--servers-lost",
                action="store_true",
                help="the machine is gone for good, and what ran there with it",
            )


def run_host_command(arguments: argparse.Namespace) -> int:
    """Do it in the hub's database; a hub that runs takes it up within seconds."""

    async def work(hub: "Hub") -> str:
        async with hub.database.write() as session:
            if arguments.action == "list":
                return await _listed(session, hub)
            return await _changed(session, hub, arguments)

    return _said_of(arguments.config, work)


async def _listed(session: "AsyncSession", hub: "Hub") -> str:
    from carrel_hub.hosts.listing import list_host_models

    rows = [("HOST", "STATE", "SERVERS", "ADDRESS", "TROUBLE")]
    rows += [
        (
            one["name"],
            one["state"],
            str(one.get("servers", "")),
            one.get("address") or "",
            one.get("trouble") or "",
        )
        for one in await list_host_models(session, hub)
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


async def _changed(session: "AsyncSession", hub: "Hub", arguments: argparse.Namespace) -> str:
    from carrel_hub.events import CONSOLE_ACTOR as ACTOR
    from carrel_hub.hosts import keeping

    host = await keeping.find_host(session, hub, arguments.name)
    match arguments.action:
        case "drain":
            await keeping.set_draining(session, hub, host, True, actor=ACTOR)
            return f"host {host.name}: nothing new is placed there"
        case "take-in":
            await keeping.set_draining(session, hub, host, False, actor=ACTOR)
            return f"host {host.name}: servers are placed there again"
        case "accept":
            await keeping.accept_machine(session, hub, host, actor=ACTOR)
            return f"host {host.name}: the other machine is taken in when it next reports"
        case "evacuate":
            ending = await keeping.evacuate(session, hub, host, actor=ACTOR)
            return f"host {host.name}: nothing new is placed there; servers ending: {len(ending)}"
        case _:
            lost = arguments.servers_lost
            gone = await keeping.remove_host(session, hub, host, actor=ACTOR, servers_are_lost=lost)
            return f"host {host.name} is removed" + (f"; servers lost: {len(gone)}" if gone else "")


def print_join_token(config: Path | None, name: str) -> int:
    """Make a join token and print it, with what to do with it on standard error."""

    async def work(hub: "Hub") -> str:
        from carrel_hub.events import CONSOLE_ACTOR
        from carrel_hub.hosts.fleet import open_authority
        from carrel_hub.hosts.joining import issue_join_token

        port = _fleet_port(hub)
        await open_authority(hub, make=True)
        async with hub.database.write() as session:
            new = await issue_join_token(session, hub, name, actor=CONSOLE_ACTOR)
        print(
            f"good once, until {new.expires_at:%H:%M %Z}; on the host:"
            f" carrel-agent join https://THIS_MACHINE:{port} - (and paste it)",
            file=sys.stderr,
        )
        return new.text

    return _said_of(config, work)


def print_fleet_hub(config: Path | None, name: str) -> int:
    """Print the setting by which a proxy on another machine gets its certificate; no secret."""

    async def work(hub: "Hub") -> str:
        from carrel_hub.hosts.fleet import open_authority

        port = _fleet_port(hub)
        if all(peer.name != name for peer in hub.settings.proxies):
            known = ", ".join(peer.name for peer in hub.settings.proxies) or "none"
            raise CommandError(
                f"hub.proxies names no proxy {name!r} (it names {known}): put it there first, with"
                " its keys"
            )
        await open_authority(hub, make=True)
        print(
            f"into [proxy] of {name}'s settings, with the name or address of this machine; without"
            " fleet_ca, fleet_cert and fleet_key",
            file=sys.stderr,
        )
        return f'fleet_hub = "THIS_MACHINE:{port}#{hub.fleet.authority.fingerprint}"'

    return _said_of(config, work)


def _fleet_port(hub: "Hub") -> str:
    if hub.settings.fleet_listen is None:
        raise CommandError(
            "hub.fleet_listen is not set, so no other machine can reach the hub; set it to an"
            " address such as 0.0.0.0:8444 and start the hub anew"
        )
    return hub.settings.fleet_listen.rpartition(":")[2]


def _said_of(config: Path | None, do: "Callable[[Hub], Awaitable[str]]") -> int:
    """Do something with the hub's database, and print what it returns."""
    settings = load_hub_settings(config)

    async def work() -> None:
        from carrel_hub.errors import HubError

        try:
            async with opened_hub(settings) as hub:
                said = await do(hub)
        except HubError as error:
            raise CommandError(error.message) from error
        print(said)

    asyncio.run(in_plain_words(work()))
    return EXIT_OK

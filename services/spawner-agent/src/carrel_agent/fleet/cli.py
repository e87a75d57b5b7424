"""The command lines of `carrel-agent join` and `carrel-agent leave`."""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from carrel_agent.fleet.join import JoinOptions, advice, join
from carrel_agent.fleet.leave import leave
from carrel_agent.fleet.places import SERVICE_ACCOUNT, HostPlaces, usual_places
from carrel_shared.fleet_joining import JoinError

TOKEN_VARIABLE = "CARREL_JOIN_TOKEN"  # noqa: S105 - the variable's name
_LABEL = re.compile(r"([A-Za-z0-9][A-Za-z0-9._/-]{0,62})=([A-Za-z0-9._:-]{0,63})")


def run_fleet_command(argv: Sequence[str]) -> int:
    """Join or leave; return the exit status."""
    os.umask(0o077)
    arguments = _parser().parse_args(argv)
    try:
        if arguments.command == "leave":
            leave(_places(arguments), force=arguments.force)
            print("this host has left", file=sys.stderr)
            return 0
        options = _options(arguments)
        name = join(options)
        print(advice(options, name), file=sys.stderr)
    except JoinError as error:
        print(f"carrel-agent: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="carrel-agent")
    commands = parser.add_subparsers(dest="command", required=True)
    joining = commands.add_parser("join", help="make this machine one of a hub's hosts")
    joining.add_argument("url", metavar="URL", help="the hub's fleet_listen: https://HUB:8444")
    joining.add_argument(
        "token",
        metavar="TOKEN",
        nargs="?",
        default="-",
        help="what `carrel-hub token agent NAME` printed; without it, or as -, it is read from"
        f" {TOKEN_VARIABLE} or standard input, which nobody else on this machine can see",
    )
    joining.add_argument("--label", action="append", default=[], metavar="NAME=VALUE")
    joining.add_argument("--address", default="", help="where hub and proxies reach this host")
    joining.add_argument("--agent-port", type=int, default=8445)
    joining.add_argument("--relay-port", type=int, default=8446)
    joining.add_argument(
        "--homes", default="", metavar="NAME", help="what homes lie on, if hosts share them"
    )
    joining.add_argument(
        "--account", default=SERVICE_ACCOUNT, help="whom the relay runs as, if root joins the host"
    )
    joining.add_argument("--systemd", action="store_true", help="install units and start them")
    joining.add_argument("--again", action="store_true", help="replace this host's credentials")
    leaving = commands.add_parser("leave", help="take this machine from the hub's hosts")
    leaving.add_argument("--force", action="store_true", help="even if the hub does not agree")
    for each in (joining, leaving):
        each.add_argument("--config-dir", type=Path, metavar="DIR")
        each.add_argument("--state-dir", type=Path, metavar="DIR")
        each.add_argument("--run-dir", type=Path, metavar="DIR")
    return parser


def _options(arguments: argparse.Namespace) -> JoinOptions:
    token = arguments.token
    if token == "-":  # noqa: S105 - what stands for it
        token = os.environ.get(TOKEN_VARIABLE) or sys.stdin.readline()
    labels = {}
    for text in arguments.label:
        if (match := _LABEL.fullmatch(text)) is None:
            raise JoinError(f"--label {text}: expected NAME=VALUE, without spaces")
        labels[match[1]] = match[2]
    return JoinOptions(
        url=arguments.url,
        token=token,
        places=_places(arguments),
        labels=labels,
        address=arguments.address,
        agent_port=arguments.agent_port,
        relay_port=arguments.relay_port,
        homes=arguments.homes,
        account=arguments.account,
        systemd=arguments.systemd,
        again=arguments.again,
    )


def _places(arguments: argparse.Namespace) -> HostPlaces:
    places = usual_places(os.environ)
    said = {
        "config": arguments.config_dir,
        "state": arguments.state_dir,
        "run": arguments.run_dir,
    }
    return replace(places, **{name: path.resolve() for name, path in said.items() if path})

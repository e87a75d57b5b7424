"""The command line. What is wrong is said in a line on standard error, never with a traceback."""

import argparse
import asyncio
import os
import sys
from collections.abc import Coroutine, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carrel_hub import __version__

if TYPE_CHECKING:
    from carrel_hub.settings import HubSettings

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_CONFIG = 0, 1, 2, 78
"""78 is EX_CONFIG (sysexits.h): starting again cannot help before something is changed."""

EVENTS_A_SECOND = 200
"""How often one event is logged at most: guesses at passwords are no reason to fill a disk."""


class CommandError(Exception):
    """A command cannot do what it was asked; the message is for the person who asked."""

    def __init__(self, message: str, *, status: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.status = status


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    os.umask(0o077)
    try:
        if arguments.generate_config:
            return _generate_config()
        match arguments.command:
            case "serve":
                return _serve(arguments.config)
            case "db":
                from carrel_hub.cli_database import run_database_command

                return run_database_command(arguments)
            case "token":
                return _token_for(arguments)
            case "host":
                from carrel_hub.cli_hosts import run_host_command

                return run_host_command(arguments)
            case "link":
                from carrel_hub.cli_link import print_link

                return print_link(arguments)
            case _:
                parser.print_help(sys.stderr)
                return EXIT_USAGE
    except CommandError as error:
        print(f"carrel-hub: {error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    from carrel_hub.cli_database import add_database_commands
    from carrel_hub.cli_hosts import add_host_commands

    parser = argparse.ArgumentParser(prog="carrel-hub", description="Carrel's hub.")
    parser.add_argument("--config", type=Path, metavar="FILE", help="carrel.toml")
    parser.add_argument("--version", action="version", version=f"carrel-hub {__version__}")
    parser.add_argument(
        "--generate-config", action="store_true", help="print every setting and its default"
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("serve", help="run the hub")
    add_database_commands(commands)
    token = commands.add_parser(
        "token", help="make an API token for a user, or a join token for a host, and print it"
    )
    token.add_argument(
        "name",
        nargs="+",
        metavar="NAME",
        help="the user, who must have signed in before; or `agent NAME`: a host that is to join; or"
        " `proxy NAME`: a proxy of the settings on another machine",
    )
    token.add_argument("--note", default="Made at the command line", help="what it is for")
    add_host_commands(commands)
    link = commands.add_parser(
        "link", help="make a one-time sign-in link for an administrator, and print it"
    )
    link.add_argument("name", metavar="NAME", help="who is signed in by it; made if need be")
    link.add_argument(
        "--hub-only", action="store_true", help="NAME has no unix account, and so no servers"
    )
    link.add_argument(
        "--at", metavar="URL", help="where people reach Carrel, when hub.public_url does not say so"
    )
    return parser


def _generate_config() -> int:
    from carrel_hub.settings import HubSettings
    from carrel_shared.settings import generate_config

    sys.stdout.write(generate_config(HubSettings))
    return EXIT_OK


# What follows imports late, so that `--version` and errors in settings come at once, and so that
# Alembic is never loaded by a hub that serves.


def load_hub_settings(config: Path | None) -> "HubSettings":
    """Return the settings, with the state directory they name.

    Raises:
        CommandError: They cannot be used.
    """
    from carrel_hub.settings import HubSettings
    from carrel_shared.settings import SettingsError, load_settings, process_environment

    try:
        settings = load_settings(HubSettings, config, process_environment())
    except SettingsError as error:
        raise CommandError(f"the settings cannot be used:\n{error}", status=EXIT_CONFIG) from error
    if not settings.state_dir.is_dir():
        try:
            settings.state_dir.mkdir(mode=0o700, parents=True)
        except OSError as error:
            message = f"hub.state_dir: cannot make {settings.state_dir}: {error.strerror}"
            raise CommandError(message, status=EXIT_CONFIG) from error
    if not os.access(settings.state_dir, os.R_OK | os.W_OK | os.X_OK):
        raise CommandError(
            f"hub.state_dir: {settings.state_dir} cannot be written by this account",
            status=EXIT_CONFIG,
        )
    return settings


def _token_for(arguments: argparse.Namespace) -> int:
    match arguments.name:
        case [name]:
            return _token(arguments.config, name, arguments.note)
        case ["agent", name]:
            from carrel_hub.cli_hosts import print_join_token

            return print_join_token(arguments.config, name)
        case ["proxy", name]:
            from carrel_hub.cli_hosts import print_fleet_hub

            return print_fleet_hub(arguments.config, name)
        case _:
            ways = "`token NAME`, `token agent NAME` or `token proxy NAME`"
            raise CommandError(f"say {ways}", status=EXIT_USAGE)


def _token(config: Path | None, name: str, note: str) -> int:
    settings = load_hub_settings(config)

    async def work() -> None:
        from carrel_hub.auth.names import InvalidNameError, normalise_name
        from carrel_hub.auth.tokens import issue_token
        from carrel_hub.cli_hub import opened_hub
        from carrel_hub.events import CONSOLE_ACTOR
        from carrel_hub.users.accounts import find_user

        try:
            async with opened_hub(settings) as hub, hub.database.write() as session:
                user = await find_user(session, normalise_name(name))
                if user is None:
                    raise CommandError(f"there is no user {name!r}; users appear at sign-in")
                new = await issue_token(session, hub, user, actor=CONSOLE_ACTOR, note=note)
            print(new.secret)
        except InvalidNameError as error:
            raise CommandError(f"{name!r} cannot be a user's name: {error}") from error

    asyncio.run(in_plain_words(work()))
    return EXIT_OK


def _serve(config: Path | None) -> int:
    import uvloop

    from carrel_shared.deferred import light_imports

    with light_imports():
        settings = load_hub_settings(config)
        from carrel_hub.serve import serve_hub
    from carrel_shared.logging import configure_logging

    configure_logging(
        "hub",
        level=settings.log_level,
        json_lines=settings.log_json,
        most_a_second=EVENTS_A_SECOND,
    )
    with ExitStack() as stack:
        lock_sqlite(stack, settings)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(in_plain_words(serve_hub(settings)))
    return EXIT_OK


def lock_sqlite(stack: ExitStack, settings: "HubSettings") -> None:
    """See that no second hub uses the database, where the database itself does not."""
    from carrel_hub.db.address import sqlite_path
    from carrel_hub.singleton import AnotherHubError, HubLock

    if settings.effective_database_url.startswith("sqlite"):
        try:
            stack.enter_context(HubLock(sqlite_path(settings.effective_database_url)))
        except AnotherHubError as error:
            raise CommandError(str(error)) from error


async def in_plain_words(work: Coroutine[Any, Any, None]) -> None:
    """Say what the database or a listener objects to, in one line."""
    from sqlalchemy.exc import DBAPIError

    from carrel_hub.auth.signing import SigningKeyError
    from carrel_hub.db.expected import SchemaError
    from carrel_hub.db.faults import reason_of
    from carrel_hub.hosts.opened import AuthorityError
    from carrel_hub.replicas.presence import UnlikeReplicasError
    from carrel_hub.startup import StartupError
    from carrel_shared.addresses import AddressError
    from carrel_shared.service_auth import EmptyKeyError

    try:
        await work
    except DBAPIError as error:
        raise CommandError(f"the database cannot be used: {reason_of(error)}") from error
    except (
        SchemaError,
        SigningKeyError,
        EmptyKeyError,
        StartupError,
        AuthorityError,
        UnlikeReplicasError,
    ) as error:
        raise CommandError(str(error), status=EXIT_CONFIG) from error
    except AddressError as error:
        raise CommandError(str(error)) from error

"""`carrel-agent [--config FILE] keeper | serve | join | leave | sudoers WHO | ...`."""

import argparse
import asyncio
import os
import sys
from pathlib import Path

from carrel_agent import __version__

EX_FAILURE = 1
EX_CONFIG = 78


def main() -> int:
    """Do what the command line says; return the exit status."""
    if sys.argv[1:2] in (["join"], ["leave"]):
        from carrel_agent.fleet.cli import run_fleet_command

        return run_fleet_command(sys.argv[1:])
    arguments = _parse()
    if arguments.generate_config:
        from carrel_agent.settings import AgentSettings
        from carrel_shared.settings import generate_config

        print(generate_config(AgentSettings), end="")
        return 0
    if arguments.command == "keeper":
        return _keeper(arguments.config)
    if arguments.command == "sudoers":
        return _sudoers(arguments.accounts)
    return _serve(arguments.config)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="carrel-agent", description="Starts, watches and stops notebook servers on this host."
    )
    parser.add_argument("--version", action="version", version=f"carrel-agent {__version__}")
    parser.add_argument(
        "--generate-config", action="store_true", help="print every setting with its default"
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="the file carrel.toml")
    parser.add_argument(
        "command",
        nargs="?",
        choices=("keeper", "serve", "join", "leave", "sudoers"),
        help="keeper: run the agent under its keeper (what you want); serve: the agent alone; join,"
        " leave: make this machine one of a hub's hosts, or take it away (see `join --help`);"
        " sudoers: print the line that lets this account start the servers of WHO by sudo",
    )
    parser.add_argument(
        "accounts", nargs="?", metavar="WHO", help="an account, or a group with a %% before it"
    )
    arguments = parser.parse_args()
    if arguments.command in ("join", "leave"):
        parser.error(f"{arguments.command} comes first on the command line")
    if not arguments.generate_config and arguments.command is None:
        parser.error("say what to do: keeper, serve, join, leave, sudoers, or one of the options")
    if (arguments.command == "sudoers") != (arguments.accounts is not None):
        parser.error("sudoers, and nothing else, needs an account, or a group with a % before it")
    return arguments


def _keeper(config: Path | None) -> int:
    main_file = str(Path(__file__).resolve().parent / "keeper" / "main.py")
    options = [] if config is None else ["--config", str(config.resolve())]
    command = [sys.executable, "-I", "-S", main_file, *options]
    os.execv(sys.executable, command)  # noqa: S606 - this interpreter and a file of our own
    return EX_FAILURE


def _sudoers(accounts: str) -> int:
    from carrel_agent.runners.sudo import sudoers_line
    from carrel_agent.supervise.accounts import account_name

    print(sudoers_line(account_name(os.getuid()), accounts))
    return 0


def _serve(config: Path | None) -> int:
    from carrel_shared.deferred import light_imports

    with light_imports():
        from carrel_agent.errors import SetupError
        from carrel_agent.keeper.channel import ChannelClosedError, RefusedError
        from carrel_agent.serving import AlreadyRunningError, run
        from carrel_agent.settings import AgentSettings
    from carrel_shared.addresses import AddressError
    from carrel_shared.logging import configure_logging
    from carrel_shared.settings import SettingsError, load_settings, process_environment

    environ = process_environment()
    try:
        settings = load_settings(AgentSettings, config, environ)
    except SettingsError as error:
        print(f"carrel-agent: {error}", file=sys.stderr)
        return EX_CONFIG
    import uvloop

    configure_logging("agent", level=settings.log_level, json_lines=settings.log_json)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(settings, environ))
    except SetupError as error:
        print(f"carrel-agent: {error}", file=sys.stderr)
        return EX_CONFIG
    except (AlreadyRunningError, AddressError, ChannelClosedError, RefusedError, OSError) as error:
        print(f"carrel-agent: {error}", file=sys.stderr)
        return EX_FAILURE
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`carrel-proxy`: reads the command line and the settings, then starts the proxy."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from carrel_proxy import __version__
from carrel_proxy.chp.options import is_meant
from carrel_shared.settings import SettingsError, process_environment


def main(arguments: list[str] | None = None) -> int:
    """Start the proxy, or do what is asked instead; return the exit status.

    A proxy that starts becomes another program in this process, so this does not return then.
    """
    given = sys.argv[1:] if arguments is None else arguments
    environ = process_environment()
    if given[:1] == ["reload"]:
        from carrel_proxy.process.command import reload

        return reload(given[1:], environ)
    if is_meant(given, environ):
        from carrel_proxy.chp.program import main as chp_main

        return chp_main(given, environ)
    return _carrel(given, environ)


def _carrel(given: Sequence[str], environ: Mapping[str, str]) -> int:
    options = _parser().parse_args(given)
    if options.generate_config:
        from carrel_proxy.settings import ProxySettings
        from carrel_shared.settings import generate_config

        print(generate_config(ProxySettings), end="")
        return 0
    from carrel_proxy.process.launch import launch, report_failure
    from carrel_proxy.starting import plan_of, read_settings
    from carrel_shared.addresses import AddressError
    from carrel_shared.logging import configure_logging

    try:
        text, settings = read_settings(options.config, environ)
        configure_logging("proxy", level=settings.log_level, json_lines=settings.log_json)
        if not options.check:
            launch(plan_of(given, text, settings), environ)
    except (SettingsError, AddressError, OSError) as error:
        print(f"carrel-proxy: {error}", file=sys.stderr)
        report_failure(str(error), environ)
        return os.EX_CONFIG if isinstance(error, SettingsError) else 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="carrel-proxy",
        description="Carrel's proxy: the one public address. Without --config and CARREL_PROXY__"
        " variables it takes the place of configurable-http-proxy. `carrel-proxy reload` has one"
        " that runs take up new settings, certificates and its own new version.",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="the file carrel.toml")
    parser.add_argument("--check", action="store_true", help="check the settings and end")
    parser.add_argument(
        "--generate-config", action="store_true", help="print every setting and its default"
    )
    parser.add_argument("-V", "--version", action="version", version=f"carrel-proxy {__version__}")
    return parser


if __name__ == "__main__":
    sys.exit(main())

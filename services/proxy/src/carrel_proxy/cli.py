"""`carrel-proxy` as Carrel's own proxy: from its command line to its start."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from carrel_proxy import __version__
from carrel_proxy.process.launch import launch, report_failure
from carrel_proxy.settings import ProxySettings
from carrel_proxy.starting import plan_of, read_settings
from carrel_shared.addresses import AddressError
from carrel_shared.logging import configure_logging
from carrel_shared.settings import SettingsError, generate_config


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Start the proxy, or do what is asked instead; return the exit status."""
    options = _parser().parse_args(arguments)
    if options.generate_config:
        print(generate_config(ProxySettings), end="")
        return 0
    try:
        text, settings = read_settings(options.config, environ)
        configure_logging("proxy", level=settings.log_level, json_lines=settings.log_json)
        if not options.check:
            launch(plan_of(arguments, text, settings), environ)
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

"""`carrel-proxy`: reads the settings, opens the addresses, runs the proxy."""

import argparse
import os
import resource
import socket
import ssl
import sys
from pathlib import Path

import uvloop

from carrel_proxy import __version__
from carrel_proxy.app import run
from carrel_proxy.chp.options import is_meant
from carrel_proxy.chp.program import main as chp_main
from carrel_proxy.mutual_tls import MutualTls, towards_edges, towards_relays
from carrel_proxy.settings import ProxySettings
from carrel_proxy.tls import TlsError, public_context
from carrel_shared.addresses import AddressError, bind_address, parse_address
from carrel_shared.lines import LAST_LINES_SECONDS, LineWriter
from carrel_shared.logging import configure_logging
from carrel_shared.settings import (
    SettingsError,
    generate_config,
    load_settings,
    process_environment,
)

_PUBLIC_SOCKET_MODE = 0o666


def main(arguments: list[str] | None = None) -> int:
    """Run until a signal; returns the exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    if is_meant(given, process_environment()):
        return chp_main(given, process_environment())
    parser = argparse.ArgumentParser(
        prog="carrel-proxy",
        description="Carrel's proxy: the one public address. Without --config and CARREL_PROXY__"
        " variables it takes the place of configurable-http-proxy.",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="the file carrel.toml")
    parser.add_argument(
        "--generate-config", action="store_true", help="print every setting and its default"
    )
    parser.add_argument("-V", "--version", action="version", version=f"carrel-proxy {__version__}")
    options = parser.parse_args(given)
    if options.generate_config:
        print(generate_config(ProxySettings), end="")
        return 0
    try:
        settings = load_settings(ProxySettings, options.config, process_environment())
        tls = _tls(settings)
        _check_fleet(settings)
        _prepare_state(settings.state_dir)
    except SettingsError as error:
        _say(str(error))
        return os.EX_CONFIG
    lines = LineWriter(sys.stderr.fileno())
    configure_logging("proxy", level=settings.log_level, json_lines=settings.log_json, to=lines)
    _raise_descriptor_limit()
    try:
        control = bind_address(parse_address(settings.control_listen))
        public = _bind_public(settings)
        metrics = _bind_metrics(settings)
    except AddressError as error:
        _say(str(error))
        return 1
    try:
        uvloop.run(run(settings, [public], [control], tls, metrics, lines))
    finally:
        lines.settle(LAST_LINES_SECONDS)
    return 0


def _bind_public(settings: ProxySettings) -> socket.socket:
    try:
        return bind_address(parse_address(settings.bind), mode=_PUBLIC_SOCKET_MODE)
    except AddressError as error:
        raise AddressError(
            f"{error}. Set another address: `bind` in [proxy], CARREL_PROXY__BIND, or"
            " `carrel up --bind`"
        ) from error


def _bind_metrics(settings: ProxySettings) -> list[socket.socket]:
    if settings.metrics_listen is None:
        return []
    return [bind_address(parse_address(settings.metrics_listen))]


def _tls(settings: ProxySettings) -> ssl.SSLContext | None:
    if not settings.certificates:
        return None
    try:
        return public_context(settings.certificates)
    except TlsError as error:
        raise SettingsError(f"tls_cert, tls_key, tls_certificates: {error}") from error


def _check_fleet(settings: ProxySettings) -> None:
    """Say at the start, and not at the first connection, that a file cannot be used."""
    if settings.fleet is not None:
        MutualTls(settings.fleet, towards_edges if settings.mode == "relay" else towards_relays)


def _prepare_state(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"state_dir {directory}: {error.strerror}") from error
    if not os.access(directory, os.R_OK | os.X_OK):
        raise SettingsError(f"state_dir {directory}: this account may not read there")


def _raise_descriptor_limit() -> None:
    """Every request through the proxy takes two descriptors."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _say(text: str) -> None:
    print(f"carrel-proxy: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())

"""What Carrel's proxy is started with: its settings, checked, and what its parent is to do."""

import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from carrel_proxy.mutual_tls import MutualTls, towards_edges, towards_relays
from carrel_proxy.process.command import STATUS_FILE
from carrel_proxy.process.launch import Run, Wanted
from carrel_proxy.settings import ProxySettings
from carrel_proxy.tls import TlsError, public_context
from carrel_shared.addresses import AddressError, bind_address, parse_address
from carrel_shared.deferred import light_imports
from carrel_shared.settings import SettingsError, load_settings

_PUBLIC_SOCKET_MODE = 0o666


def read_settings(path: Path | None, environ: Mapping[str, str]) -> tuple[str, ProxySettings]:
    """Return the text of the settings file and what it says, once all of it can be followed.

    Raises:
        SettingsError: Naming what cannot.
    """
    settings = load_settings(ProxySettings, path, environ)
    if settings.certificates:
        try:
            public_context(settings.certificates)
        except TlsError as error:
            raise SettingsError(f"tls_cert, tls_key, tls_certificates: {error}") from error
    if settings.fleet is not None:
        if settings.mode == "relay":
            MutualTls(settings.fleet, towards_edges)
        else:
            MutualTls(settings.fleet, towards_relays, may_come_later=True)
    _prepare_state(settings.state_dir)
    return path.read_text(encoding="utf-8") if path is not None else "", settings


def plan_of(given: Sequence[str], text: str, settings: ProxySettings) -> Run:
    """Return what the parent is to do.

    Args:
        given: The command line.
        text: The settings file's, which workers are given, so that all that are started until the
            next reload have the same.
    """
    wanted = [
        Wanted("public", settings.bind, lambda: _bind_public(settings.bind)),
        _own("control", settings.control_listen),
    ]
    if settings.metrics_listen is not None:
        wanted.append(_own("metrics", settings.metrics_listen))
    return Run(
        arguments=given,
        wanted=wanted,
        worker=["carrel", "@text"],
        text=text,
        prepare=import_app,
        workers=settings.workers,
        drain_seconds=settings.drain_seconds,
        deadline_seconds=settings.reload_deadline_seconds,
        status_file=str(settings.state_dir.absolute() / STATUS_FILE),
        json_lines=settings.log_json,
        log_level=settings.log_level,
    )


def import_app() -> None:
    """Import what a worker needs."""
    with light_imports():
        import carrel_proxy.app  # noqa: F401


def worker_settings(descriptor: str) -> ProxySettings:
    """Return the settings a worker was given."""
    return load_settings(ProxySettings, Path(f"/dev/fd/{descriptor}"), os.environ)


def _own(role: str, address: str) -> Wanted:
    """Return a listener of which a unix socket is this account's alone."""
    return Wanted(role, address, lambda: bind_address(parse_address(address)))


def _bind_public(bind: str) -> socket.socket:
    try:
        return bind_address(parse_address(bind), mode=_PUBLIC_SOCKET_MODE)
    except AddressError as error:
        raise AddressError(
            f"{error}. Set another address: `bind` in [proxy], CARREL_PROXY__BIND, or"
            " `carrel up --bind`"
        ) from error.__cause__


def _prepare_state(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"state_dir {directory}: {error.strerror}") from error
    if not os.access(directory, os.R_OK | os.X_OK):
        raise SettingsError(f"state_dir {directory}: this account may not read there")

"""TLS between proxies of different hosts: both show a certificate of one authority.

Certificates live for days and are renewed on disk, so files that have changed are read again at the
next connection. What is open stays open.
"""

import ssl
from collections.abc import Callable
from typing import NoReturn

import structlog

from carrel_shared.fleet import FleetFiles, Stamp
from carrel_shared.settings import SettingsError

log = structlog.get_logger(__name__)


class MutualTls:
    """What one side of such connections speaks TLS with.

    Args:
        may_come_later: Files that are missing are no error yet: a hub on this machine may be about
            to make them.

    Raises:
        SettingsError: If a file cannot be used.
    """

    def __init__(
        self,
        files: FleetFiles,
        build: Callable[[FleetFiles], ssl.SSLContext],
        *,
        may_come_later: bool = False,
    ) -> None:
        self._files = files
        self._build = build
        self._stamp: Stamp = ()
        self._context: ssl.SSLContext | None = None
        if may_come_later and not files.are_there():
            log.warning("certificate_missing", file=str(files.cert))
            return
        try:
            self._context = build(files)
            self._stamp = files.stamp()
        except OSError as error:
            raise SettingsError(f"{files.ca}, {files.cert}: {error.strerror}") from error

    def context(self) -> ssl.SSLContext:
        """Return what the next connection is to use.

        Raises:
            SettingsError: If there never was a certificate.
        """
        try:
            stamp = self._files.stamp()
            if stamp != self._stamp:
                self._stamp = stamp
                self._context = self._build(self._files)
                log.info("certificate_renewed", file=str(self._files.cert))
        except (OSError, SettingsError) as error:
            # Half written, perhaps: there will be another stamp when it is whole.
            log.error("certificate_not_renewed", reason=str(error))
        if self._context is None:
            raise SettingsError(f"fleet_cert {self._files.cert} is not there yet")
        return self._context


def towards_relays(files: FleetFiles) -> ssl.SSLContext:
    """Return what an edge connects to relays with. Whose certificate it is, is checked after.

    Raises:
        SettingsError: If a file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # hosts are known by their id: see `core.identity`
    return _filled(context, files)


def towards_edges(files: FleetFiles) -> ssl.SSLContext:
    """Return what a relay accepts edges with. Whose certificate it is, is checked after.

    Raises:
        SettingsError: If a file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0  # a resumed session would not show its certificate again
    return _filled(context, files)


def _filled(context: ssl.SSLContext, files: FleetFiles) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_3  # both ends are ours
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(files.cert, files.key, password=_no_password)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"fleet_cert {files.cert} and fleet_key {files.key} cannot be used:"
            f" {error.strerror or error}"
        ) from error
    try:
        context.load_verify_locations(files.ca)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"fleet_ca {files.ca} cannot be used: {error.strerror or error}"
        ) from error
    return context


def _no_password() -> NoReturn:
    raise SettingsError("fleet_key is encrypted; a service cannot be asked for its passphrase")

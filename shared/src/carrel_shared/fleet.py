"""TLS between machines, under the hub's own authority.

Everybody shows a certificate that says in one URI who it is: `carrel://host/ID`,
`carrel://role/hub` or `carrel://role/edge`. Whom one calls is checked by a name that the authority
gives to nobody else, whatever address is called; who called is checked by the URI.
"""

import ssl
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from carrel_shared.addresses import TcpAddress, call_limits

if TYPE_CHECKING:
    import asyncio

    import httpx

HUB_IDENTITY = "carrel://role/hub"
EDGE_IDENTITY = "carrel://role/edge"
HUB_NAME = "hub.carrel.internal"
_OURS = "carrel://"

Stamp = tuple[tuple[int, int], ...]
"""What changes when one of some files does."""


def host_identity(host_id: str) -> str:
    """Return the URI in a host's certificate."""
    return f"{_OURS}host/{host_id}"


def host_name(host_id: str) -> str:
    """Return the name by which a host's certificate is checked; no DNS knows it."""
    return f"{host_id}.host.carrel.internal"


def identity_of(certificate: Mapping[str, Any] | None) -> str:
    """Return who a verified certificate says it is; empty when it says nothing or two things."""
    names: Iterable[tuple[str, str]] = (certificate or {}).get("subjectAltName", ())
    found = [value for kind, value in names if kind == "URI" and value.startswith(_OURS)]
    return found[0] if len(found) == 1 else ""


@dataclass(frozen=True, slots=True)
class FleetFiles:
    """PEM files: the authority, and somebody's own certificate and key."""

    ca: Path
    cert: Path
    key: Path

    def are_there(self) -> bool:
        """Whether none of them is missing."""
        return all(path.exists() for path in (self.ca, self.cert, self.key))

    def stamp(self) -> Stamp:
        """Return what changes when one of the files does.

        Raises:
            OSError: One is missing.
        """
        stats = [path.stat() for path in (self.ca, self.cert, self.key)]
        return tuple((stat.st_ino, stat.st_mtime_ns) for stat in stats)

    def client_context(self) -> ssl.SSLContext:
        """Return what to call with.

        Raises:
            OSError: A file cannot be read or used (`ssl.SSLError` is one).
        """
        return self._filled(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    def server_context(self, *, everybody_has_one: bool = True) -> ssl.SSLContext:
        """Return what to listen with.

        Args:
            everybody_has_one: Turn callers without a certificate away; else they are nobody.

        Raises:
            OSError: A file cannot be read or used.
        """
        context = self._filled(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        context.num_tickets = 0  # a resumed session would not show its certificate again
        context.verify_mode = ssl.CERT_REQUIRED if everybody_has_one else ssl.CERT_OPTIONAL
        return context

    def _filled(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.minimum_version = ssl.TLSVersion.TLSv1_3  # both ends are ours
        context.load_verify_locations(self.ca)
        context.load_cert_chain(self.cert, self.key)
        return context


class RenewedContext:
    """A listener's context that takes up new certificates; what is open stays open."""

    def __init__(self, files: FleetFiles, *, everybody_has_one: bool = True) -> None:
        self._files = files
        self.context = files.server_context(everybody_has_one=everybody_has_one)

    def renew(self) -> None:
        """Use what the files hold now for every connection to come.

        Raises:
            OSError: A file cannot be read or used.
        """
        self.context.load_verify_locations(self._files.ca)
        self.context.load_cert_chain(self._files.cert, self._files.key)


def fleet_client(
    files: FleetFiles,
    addresses: Sequence[TcpAddress],
    name: str,
    *,
    timeout_seconds: float = 10,
) -> "httpx.AsyncClient":
    """Return a client of whoever answers at one of these addresses and has the right certificate.

    Certificates that were renewed on disk count from the next connection on.

    Args:
        name: The certificate's: `HUB_NAME`, or `host_name` of a host.
    """
    import httpx

    from carrel_shared.failover import Failover  # here, as it is large too

    class Renewing(httpx.AsyncBaseTransport):
        def __init__(self) -> None:
            self._stamp: object = None
            self._inner: httpx.AsyncHTTPTransport | None = None

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            request.extensions = {**request.extensions, "sni_hostname": name}
            return await (await self._current()).handle_async_request(request)

        async def _current(self) -> httpx.AsyncHTTPTransport:
            try:
                stamp = files.stamp()
                if self._inner is None or stamp != self._stamp:
                    fresh = httpx.AsyncHTTPTransport(
                        verify=files.client_context(), trust_env=False, limits=call_limits()
                    )
                    old, self._inner, self._stamp = self._inner, fresh, stamp
                    if old is not None:
                        await old.aclose()
            except OSError as error:
                if self._inner is None:
                    raise httpx.ConnectError(f"{files.cert}: {error}") from error
            return self._inner

        async def aclose(self) -> None:
            if self._inner is not None:
                await self._inner.aclose()

    return httpx.AsyncClient(
        base_url=f"https://{addresses[0]}",
        transport=Failover(addresses, lambda _address: Renewing()),
        timeout=timeout_seconds,
        trust_env=False,
    )


class IdentifiedProtocol(HttpToolsProtocol):
    """Leaves in `scope["state"]["identity"]` who a connection's certificate says it is."""

    def connection_made(self, transport: "asyncio.Transport") -> None:  # type: ignore[override]
        found = identity_of(cast("Mapping[str, Any]", transport.get_extra_info("peercert")))
        self.app_state = {**self.app_state, "identity": found}
        super().connection_made(transport)


def listener_options(renewed: RenewedContext) -> dict[str, Any]:
    """Return what `carrel_shared.serving.Listener` needs beside its sockets to speak this TLS."""
    return {
        "ssl_context_factory": lambda _config, _default: renewed.context,
        "http": IdentifiedProtocol,
    }

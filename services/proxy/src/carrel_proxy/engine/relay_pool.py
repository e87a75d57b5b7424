"""Connections of an edge to the relay of another host: over TLS, to that host and to no other."""

import ssl

import structlog

from carrel_proxy.core.identity import host_identity, identities, is_identity
from carrel_proxy.engine.counters import Counters
from carrel_proxy.engine.deadlines import Deadlines
from carrel_proxy.engine.upstream import Pool, UpstreamConnection
from carrel_proxy.errors import HostAwayError, WrongPeerError
from carrel_proxy.mutual_tls import MutualTls
from carrel_shared.addresses import TcpAddress
from carrel_shared.settings import SettingsError

log = structlog.get_logger(__name__)

LOG_SECONDS = 10.0


class RelayPool(Pool):
    """The connections to one host's relay, for one route."""

    __slots__ = ("_host_id", "_logged", "_mutual_tls")

    away_error = HostAwayError

    def __init__(
        self,
        target: TcpAddress,
        host_id: str,
        tls: MutualTls | None,
        deadlines: Deadlines,
        *,
        connect_seconds: float,
        idle_seconds: float,
        counters: Counters,
        vanished_seconds: float,
    ) -> None:
        super().__init__(
            target,
            None,
            deadlines,
            connect_seconds=connect_seconds,
            idle_seconds=idle_seconds,
            counters=counters,
            vanished_seconds=vanished_seconds,
        )
        self._host_id = host_id
        self._mutual_tls = tls
        self._logged = float("-inf")

    async def _open(self) -> UpstreamConnection:
        """Connect, and look whose certificate it is before anything is sent."""
        if self._mutual_tls is None:
            raise self._refused("fleet_ca, fleet_cert and fleet_key are not set at this proxy")
        target = self.target
        assert isinstance(target, TcpAddress)  # noqa: S101 - as it was made
        try:
            connection = await self._connect_tcp(target, self._mutual_tls.context())
        except ssl.SSLCertVerificationError as error:
            raise self._refused(error.verify_message) from error
        except ssl.SSLError as error:
            raise self._refused(error.reason or str(error)) from error
        except SettingsError as error:
            raise self._refused(str(error)) from error
        certificate = connection.transport.get_extra_info("peercert")
        expected = host_identity(self._host_id)
        if not is_identity(certificate, expected):
            connection.transport.abort()
            said = ", ".join(sorted(identities(certificate))) or "nothing"
            raise self._refused(f"its certificate says {said} where {expected} is needed")
        return connection

    def _refused(self, reason: str) -> WrongPeerError:
        now = self._deadlines.now
        if now - self._logged >= LOG_SECONDS:
            self._logged = now
            log.error(
                "relay_refused", target=str(self.target), host_id=self._host_id, reason=reason
            )
        return WrongPeerError(f"{self.target}: {reason}")

"""The proxy's settings: the `[proxy]` table of `carrel.toml`, or `CARREL_PROXY__...`."""

import ipaddress
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from carrel_proxy.tls import CertificateFiles
from carrel_shared.addresses import TcpAddress, UnixAddress, parse_address
from carrel_shared.fields import (
    AddressesText,
    AddressText,
    BasePath,
    LogLevel,
    PeerName,
    ServiceKey,
)
from carrel_shared.fleet import FleetFiles
from carrel_shared.settings import ServiceSettings

_EDGES_OWN = (
    *("hub_url", "hub_key", "fleet_hub", "default_target", "trusted_peers"),
    *("tls_cert", "tls_key", "tls_certificates"),
)
"""What a relay must not have: it holds nothing of the hub's and believes edges alone."""


class CertificateSetting(BaseModel):
    """One of several certificates."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cert: Path
    key: Path


class ProxySettings(ServiceSettings):
    """Every setting of the proxy."""

    table: ClassVar[str] = "proxy"
    model_config = SettingsConfigDict(env_prefix="CARREL_PROXY__")

    mode: Literal["edge", "relay"] = Field(
        default="edge",
        description="An edge is what people reach. A relay runs on another host, takes requests"
        " from edges alone, and hands them to the sockets that its host's agent names.",
    )
    bind: AddressText = Field(
        default="127.0.0.1:8000",
        description="The public address: host:port or unix:/path. One that other machines can"
        " reach needs TLS.",
    )
    tls_cert: Path | None = Field(
        default=None, description="PEM file with the certificate and its chain."
    )
    tls_key: Path | None = Field(default=None, description="PEM file with the certificate's key.")
    tls_certificates: list[CertificateSetting] = Field(
        default=[],
        description="More certificates, each with `cert` and `key`. A client is shown the one for"
        " the host it names, else that of tls_cert, else the first of these.",
    )
    insecure: bool = Field(
        default=False,
        description="Accept a public address without TLS, because TLS ends somewhere else.",
    )
    base_url: BasePath = Field(
        default="/",
        description="Path of the whole installation below its address, a slash at both ends.",
    )
    default_target: AddressText | None = Field(
        default=None,
        description="Where requests go that no route covers until the hub sends the routes: the"
        " hub's `listen`, as unix:/path or http://host:port.",
    )
    name: PeerName = Field(
        default="edge",
        description="This proxy's name, as the hub's settings have it.",
    )
    control_listen: AddressText = Field(
        description="Where the hub calls this proxy, or its host's agent a relay: unix:/path or"
        " host:port."
    )
    control_key: ServiceKey = Field(
        description="What the hub shows this proxy, or its host's agent a relay."
    )
    metrics_listen: AddressText | None = Field(
        default=None,
        description="Where Prometheus reads /metrics: host:port or unix:/path. Off without it. An"
        " address that other machines can reach needs `metrics_key`.",
    )
    metrics_key: ServiceKey | None = Field(
        default=None,
        description="What Prometheus shows as bearer token (`authorization: credentials`).",
    )
    hub_url: AddressesText | None = Field(
        default=None,
        description="Where this proxy calls the hub, its `internal_listen`: unix:/path or"
        " host:port; of several hubs all of them, with commas between. An edge needs it, a relay"
        " knows no hub.",
    )
    hub_key: ServiceKey | None = Field(
        default=None, description="What this proxy shows the hub. An edge needs it."
    )
    fleet_ca: Path | None = Field(
        default=None,
        description="PEM file with the authority that edges and relays of several hosts know each"
        " other by. The three fleet files belong together, a relay needs them, and files that have"
        " changed are read again by themselves.",
    )
    fleet_cert: Path | None = Field(
        default=None,
        description="PEM file with this proxy's certificate under that authority. An edge's says"
        " URI:carrel://role/edge, a relay's URI:carrel://host/ID.",
    )
    fleet_key: Path | None = Field(default=None, description="PEM file with the key of fleet_cert.")
    fleet_hub: str | None = Field(
        default=None,
        pattern=r"^[^\s/#@]+:[0-9]{1,5}#[0-9a-f]{64}$",
        description="Of an edge on another machine than the hub, in place of the three fleet files:"
        " the hub's fleet_listen and its authority's fingerprint, as `carrel-hub token proxy NAME`"
        " prints them. It gets its certificate there with `hub_key`, and renews it.",
    )
    state_dir: Path = Field(
        description="Where the routes and verdicts are kept, so that a restart needs no hub."
    )
    trusted_peers: list[str] = Field(
        default=[],
        description="Addresses or networks of proxies before this one, whose X-Forwarded-* fields"
        " are believed. From anybody else they are removed.",
    )
    stale_sessions_seconds: float = Field(
        default=900,
        ge=0,
        description="How long people stay signed in to their servers while the hub is away. With 0"
        " the next check, ten seconds later at most, locks them out.",
    )
    handshake_seconds: float = Field(
        default=10, gt=0, description="How long a client may take for the TLS handshake."
    )
    head_seconds: float = Field(
        default=10, gt=0, description="How long a client may take for the head of a request."
    )
    body_seconds: float = Field(
        default=60, gt=0, description="How long a client may pause while it sends a body."
    )
    idle_seconds: float = Field(
        default=75, gt=0, description="How long a connection is kept between two requests."
    )
    stall_seconds: float = Field(
        default=300, gt=0, description="How long a client may leave a response unread."
    )
    connect_seconds: float = Field(
        default=5, gt=0, description="How long a server may take to accept a connection."
    )
    response_seconds: float = Field(
        default=3600,
        ge=0,
        description="How long a server may take to begin a response; 0 is for ever. Nothing limits"
        " a response that flows, or an open WebSocket.",
    )
    pause_seconds: float = Field(
        default=0,
        ge=0,
        description="How long a server may pause in the middle of a response; 0 is for ever, since"
        " streams of events are silent for hours. A server whose host vanished is noticed anyway.",
    )
    vanished_seconds: float = Field(
        default=60,
        ge=2,
        description="After how long a peer that answers nothing, not even the kernel's probes, is"
        " taken for gone. A WebSocket ends too if its peer takes none of what is sent for so long.",
    )
    upstream_idle_seconds: float = Field(
        default=4,
        gt=0,
        description="How long an unused connection to a server may carry any request. Less than"
        " servers keep theirs.",
    )
    upstream_kept_seconds: float = Field(
        default=60,
        ge=0,
        description="How long one to a server on this machine is kept for requests that can be sent"
        " again, should the server have closed it: GET and HEAD. 0 is not at all.",
    )
    workers: int = Field(
        default=1,
        ge=1,
        le=64,
        description="How many processes serve requests, all on the same addresses: about one for"
        " each core that the proxy is to use.",
    )
    drain_seconds: float = Field(
        default=30, ge=0, description="How long running requests may go on after SIGTERM."
    )
    reload_deadline_seconds: float = Field(
        default=3600,
        ge=0,
        description="How long WebSockets and responses that flow may go on, after a reload, in the"
        " processes from before it.",
    )
    max_head_bytes: int = Field(
        default=32 * 1024, ge=1024, description="Size of a request's head at most."
    )
    max_target_bytes: int = Field(
        default=8 * 1024, ge=256, description="Size of a request's path and query at most."
    )
    max_fields: int = Field(
        default=100, ge=10, description="Number of a request's header fields at most."
    )
    max_connections_per_address: int = Field(
        default=2000,
        ge=0,
        description="How many connections one address may have at a time in each worker; 0 is no"
        " limit. An IPv6 address is counted by its /64; `trusted_peers` and unix sockets are not.",
    )
    max_connections_per_route: int = Field(
        default=2000,
        ge=0,
        description="How many connections to one server may be in use at a time in each worker; 0"
        " is no limit.",
    )
    max_verdicts: int = Field(
        default=20_000, ge=100, description="How many sign-ins are remembered at most."
    )
    log_level: LogLevel = Field(default="info", description="What is logged.")
    access_log: Literal["off", "errors", "all"] = Field(
        default="off",
        description="Which requests are logged when they end: none; those that failed or were"
        " refused as malformed; or all. What could be a secret in an address is left out.",
    )
    access_log_rate: int = Field(
        default=1000,
        ge=1,
        description="Lines of it a second at most for each worker, a fifth of them for one address."
        " How many were left out is logged.",
    )
    log_json: bool = Field(default=False, description="Log JSON lines instead of text.")

    @field_validator("trusted_peers")
    @classmethod
    def _are_networks(cls, value: list[str]) -> list[str]:
        for text in value:
            ipaddress.ip_network(text)
        return value

    @model_validator(mode="after")
    def _is_safe_in_public(self) -> "ProxySettings":
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key belong together: set both or none")
        address = parse_address(self.bind)
        if (
            isinstance(address, TcpAddress)
            and not address.is_loopback
            and not self.is_tls
            and not self.insecure
        ):
            raise ValueError(
                f"bind = {self.bind!r} can be reached from other machines, and passwords would"
                " cross the network in the clear: set tls_cert and tls_key, or bind 127.0.0.1, or"
                " set insecure = true if TLS ends at another proxy before this one"
            )
        return self

    @model_validator(mode="after")
    def _keeps_metrics_to_itself(self) -> "ProxySettings":
        if self.metrics_listen is None or self.metrics_key is not None:
            return self
        address = parse_address(self.metrics_listen)
        if isinstance(address, TcpAddress) and not address.is_loopback:
            raise ValueError(
                f"metrics_listen = {self.metrics_listen!r} can be read from other machines: set"
                " metrics_key, or listen at 127.0.0.1"
            )
        return self

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        files = (self.fleet_ca, self.fleet_cert, self.fleet_key)
        if None in files and files != (None, None, None):
            raise ValueError("fleet_ca, fleet_cert and fleet_key belong together: set all or none")
        if self.fleet_hub is not None and self.fleet_ca is not None:
            raise ValueError("fleet_hub takes the place of fleet_ca, fleet_cert and fleet_key")
        needed = ("fleet_ca",) if self.mode == "relay" else ("hub_url", "hub_key")
        for name in needed:
            if getattr(self, name) is None:
                raise ValueError(f'{name} is not set, and mode = "{self.mode}" needs it')
        if self.mode == "relay":
            for name in _EDGES_OWN:
                if getattr(self, name):
                    raise ValueError(f'{name} is set, and mode = "relay" has no use for it')
            if not isinstance(parse_address(self.bind), TcpAddress):
                raise ValueError("bind: edges reach a relay at host:port")
            if not isinstance(parse_address(self.control_listen), UnixAddress):
                raise ValueError("control_listen: the agent reaches a relay at unix:/path")
        return self

    @property
    def hub_prefix(self) -> str:
        """The hub's own path: `{base}hub/`."""
        return f"{self.base_url}hub/"

    @property
    def certificates(self) -> list[CertificateFiles]:
        """What TLS is spoken with, the usual one first; empty for plain HTTP."""
        files = [CertificateFiles(each.cert, each.key) for each in self.tls_certificates]
        if self.tls_cert is not None and self.tls_key is not None:
            files.insert(0, CertificateFiles(self.tls_cert, self.tls_key))
        return files

    @property
    def is_tls(self) -> bool:
        """Whether clients speak TLS; a relay's always do."""
        return bool(self.certificates) or self.mode == "relay"

    @property
    def fleet(self) -> FleetFiles | None:
        """What edges and relays know each other by; None where there is one host only."""
        if self.fleet_hub is not None:
            pair = self.state_dir / "fleet" / "edge.pem"
            return FleetFiles(self.state_dir / "fleet" / "ca.pem", pair, pair)
        if self.fleet_ca is None or self.fleet_cert is None or self.fleet_key is None:
            return None
        return FleetFiles(self.fleet_ca, self.fleet_cert, self.fleet_key)

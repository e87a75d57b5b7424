"""How a host joins: what it sends with its join token, and what makes it one of the hub's hosts."""

from typing import Annotated

from pydantic import Field, StringConstraints

from carrel_shared.wire.base import HostId, Timestamp, WireReply, WireRequest

Labels = dict[
    Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$")],
    Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{0,63}$")],
]
"""What an operator says of a host; profiles ask for them."""

Port = Annotated[int, Field(ge=1, le=65535)]


class JoinRequest(WireRequest):
    """A host that wants to join.

    Attributes:
        token: The join token's secret part; good once.
        request: A certificate signing request (PEM) for the host's own key, which never leaves it.
        boot_id: Of the machine, so that one machine does not join as two hosts.
        at: The host's clock, which must agree with the hub's.
        address: Where hub and proxies reach the host: an IP address or a name.
        agent_port: Where its agent listens.
        relay_port: Where its relay listens.
    """

    token: str = Field(repr=False, max_length=64)
    request: str = Field(max_length=8192)
    boot_id: str = Field(max_length=64)
    at: Timestamp
    address: str = Field(max_length=255)
    agent_port: Port
    relay_port: Port


class JoinReply(WireReply):
    """The host's own credentials.

    Attributes:
        name: What the host is called from now on.
        hub_key: What the hub shows the agent.
        agent_key: What the agent shows the hub.
        certificate: PEM; says which host this is.
        authority: PEM; who signed it and every other certificate it will meet.
        base_url: Of the installation, which the relay needs.
    """

    name: HostId
    hub_key: str = Field(repr=False)
    agent_key: str = Field(repr=False)
    certificate: str
    authority: str
    base_url: str


class RenewRequest(WireRequest):
    """A new certificate is wanted for this signing request (PEM)."""

    request: str = Field(max_length=8192)


class RenewReply(WireReply):
    """The new certificate, and the authority as it is now."""

    certificate: str
    authority: str

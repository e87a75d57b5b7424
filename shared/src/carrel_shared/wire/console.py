"""What `carrel up` and `carrel link` ask of the hub."""

from pydantic import Field

from carrel_shared.wire.base import Timestamp, WireReply, WireRequest


class LinkRequest(WireRequest):
    """Make a one-time sign-in link.

    Attributes:
        user: Who is signed in by it; made if need be.
        account: The unix account that user's servers run as; None for a hub-only administrator.
        admin: Make that user an administrator.
    """

    user: str
    account: str | None = None
    admin: bool = True


class LinkReply(WireReply):
    """The link, relative to the public address. Ten minutes, single use.

    Attributes:
        origin: The hub's own, where it is at no other.
    """

    path: str = Field(repr=False)
    origin: str = ""
    expires_at: Timestamp


class JoinTokenRequest(WireRequest):
    """Let a host join under this name."""

    host: str


class JoinTokenReply(WireReply):
    """What the host shows. Single use."""

    token: str = Field(repr=False)
    expires_at: Timestamp


class RunningServer(WireReply):
    """A notebook server that is not stopped, as the console names it."""

    server_id: str
    user: str
    name: str
    state: str


class RunningServers(WireReply):
    """What is not stopped.

    Attributes:
        services: Names of managed services.
    """

    servers: list[RunningServer]
    services: list[str] = Field(default_factory=list)


class StopAllRequest(WireRequest):
    """Ask for every server to stop. Answers at once; the list of running servers follows it."""

    reason: str


class TokenRequest(WireRequest):
    """Make an API token for a user who exists."""

    user: str
    note: str = ""
    expires_in_seconds: int | None = Field(default=None, gt=0)


class TokenReply(WireReply):
    """The token, shown once."""

    token: str = Field(repr=False)

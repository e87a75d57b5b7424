"""How a proxy asks the hub who may pass (architecture decision 2).

Tokens never travel on this path after they were issued: the proxy sends their SHA-256, which is
what the hub stores.
"""

from typing import Literal

from pydantic import Field

from carrel_shared.wire.base import ServerId, Timestamp, WireReply, WireRequest


class Visitor(WireReply):
    """Who is passing, as the server behind the proxy is told in `X-Carrel-User`."""

    name: str
    display_name: str = ""
    admin: bool = False


class VerdictRequest(WireRequest):
    """May the bearer of this token (its SHA-256, hex) use this server?"""

    token_hash: str = Field(pattern=r"^[0-9a-f]{64}$")
    server_id: ServerId


class Verdict(WireReply):
    """The hub's answer.

    Attributes:
        known: Whether the hub knows the token at all. An `Authorization` header with an unknown
            token belongs to the application behind, and is forwarded untouched.
        allow: Whether it opens this server.
        session_hash: SHA-256 (hex) of the browser session the token is tied to.
        expires_at: When the token ends, whatever caches say.
    """

    known: bool
    allow: bool
    visitor: Visitor | None = None
    session_hash: str | None = None
    expires_at: Timestamp | None = None


class CodeRedemption(WireRequest):
    """Exchange an authorization code (RFC 6749 4.1.3, RFC 7636) on behalf of a server's client.

    Attributes:
        session_id: The browser's session cookie. The hub refuses a code issued to another session.
            None where the proxy is sure by itself that this browser began the sign-in: its cookies
            for that could only have been set by the host they came back to.
    """

    client_id: str
    server_id: ServerId
    redirect_uri: str
    code: str = Field(repr=False)
    code_verifier: str = Field(repr=False)
    session_id: str | None = Field(default=None, repr=False)


class RedeemedToken(WireReply):
    """A token for one browser and one server, with its first verdict."""

    token: str = Field(repr=False)
    expires_at: Timestamp
    verdict: Verdict


class ActivityReport(WireRequest):
    """When each server was last used, by server id."""

    servers: dict[str, Timestamp]


class ResyncRequest(WireRequest):
    """A proxy that starts, or finds a gap, asks to be pushed to."""

    epoch: str
    number: int
    reason: Literal["started", "gap"]

"""The proxies' route table and how the hub pushes it (architecture decision 8).

The hub numbers every change. `epoch` names the lineage of its database and is renewed when a
backup is restored; `number` grows by one with each change. A proxy whose epoch and number do not
fit what it is sent answers 409 with its own `TableStatus`, and is then sent the whole table.

A table has tens of thousands of routes, so these are structs and not models: they are read in a
quarter of the time and take a third of the memory. What is sent is checked where it is read, and is
as strict there as any `WireRequest`; nothing is checked when one is made.
"""

from functools import cache
from typing import Annotated, Literal, Self, TypeVar

import msgspec
from msgspec import Meta, Struct

from carrel_shared.wire.base import HOST_ID, SERVER_ID, WireReply

MOST_WORDS = 200
"""Characters of what is said about something that cannot be read; names in it may be long."""


def _exactly(pattern: str) -> Meta:
    """Return a pattern as `re` takes it, where `$` would let a line feed follow."""
    return Meta(pattern=pattern.removesuffix("$") + r"\Z")


Number = Annotated[int, Meta(ge=0, le=2**62)]

HostName = Annotated[str, _exactly(r"^((\*\.)?[a-z0-9]([a-z0-9.-]*[a-z0-9])?)?$")]
"""A host as routes are found by: lower case, no port, no trailing dot."""

Origin = Annotated[str, _exactly(r"^(https?://[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]+)?)?$")]
"""An origin as browsers write it."""


class UnreadableError(ValueError):
    """It is not what it should be. The message says in a line what is wrong, and where."""


# None can contain itself, so the collector need not look at any.
class RouteMessage(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """What is said about routes."""

    @classmethod
    def read(cls, body: bytes) -> Self:
        """Return what was sent as JSON.

        Raises:
            UnreadableError: If it is something else.
        """
        try:
            message: Self = _reader(cls).decode(body)
        except (ValueError, RecursionError) as error:
            raise UnreadableError(str(error)[:MOST_WORDS]) from None
        return message

    def json(self) -> bytes:
        """Return what is sent: JSON, without what goes without saying."""
        return msgspec.json.encode(self)


M = TypeVar("M", bound=RouteMessage)


@cache
def _reader(kind: type[M]) -> msgspec.json.Decoder[M]:
    return msgspec.json.Decoder(kind)


class Access(RouteMessage, frozen=True, kw_only=True):
    """How a route is guarded by the proxy itself.

    Attributes:
        server_id: Only those the hub lets into this server pass.
        client_id: The OAuth client that browsers sign in through.
        secret: Sent upstream as `X-Carrel-Secret`, so that the server knows it is the proxy.
        csrf: Who refuses what pages of other origins make a signed-in browser send: the proxy
            (`origin`), or the application alone (`app`), which may know origins that it trusts.
        origin: Scheme and host (with port) of the route's own host; empty where all share one.
        hub_origin: The same of the hub's host; empty where that is the same one.
    """

    server_id: Annotated[str, _exactly(SERVER_ID)]
    client_id: str
    secret: str
    csrf: Literal["origin", "app"] = "origin"
    origin: Origin = ""
    hub_origin: Origin = ""

    def __repr__(self) -> str:
        return f"Access(server_id={self.server_id!r}, client_id={self.client_id!r})"


class Route(RouteMessage, frozen=True, kw_only=True):
    """One entry of the table.

    Attributes:
        prefix: Percent-encoded, a slash at both ends: `/user/alice/`. It matches whole segments.
        host: The only host it is for, in lower case without a port; `*.hub.test` covers all hosts
            one label below that have no route of their own. Empty is any host.
        targets: `unix:/path` or `http://host:port`; several are replicas of one thing. On another
            host they are `https://host:port`, that host's relay.
        peer_uid: The uid that must be found behind a `unix:` target. None skips the check.
        host_id: Which host the relay's certificate must name; the hub takes it and the address from
            its own record of the host, never from the host. None for targets of this host.
        access: None lets everybody through to a target that does its own checks.
        server: True for what users run: neighbours' cookies and origin-wide headers are filtered.
        stock_client_id: The OAuth client of a server without `access` that signs people in itself,
            as JupyterHub's stock servers and services do: the cookies of this client are its own.
    """

    prefix: str
    host: HostName = ""
    targets: Annotated[list[str], Meta(min_length=1)]
    peer_uid: Annotated[int, Meta(ge=0, lt=2**32)] | None = None
    host_id: Annotated[str, _exactly(HOST_ID)] | None = None
    access: Access | None = None
    server: bool = False
    stock_client_id: str = ""


class Revocation(RouteMessage, frozen=True, kw_only=True):
    """Access that ended: cached verdicts are dropped and open sockets cut. It says of whom.

    Attributes:
        session_hash: SHA-256 (hex) of a browser session that signed out.
        token_hash: SHA-256 (hex) of a token that was revoked.
        user: Everything of this user, and everything others may do as that user.
        server_id: Everybody's access to this server is decided anew.
        ask_first: What is open may stay until the hub was asked, which may allow it still. Always
            so for a server.
    """

    session_hash: str | None = None
    token_hash: str | None = None
    user: str | None = None
    server_id: Annotated[str, _exactly(SERVER_ID)] | None = None
    ask_first: bool = False

    def __post_init__(self) -> None:
        if not (self.session_hash or self.token_hash or self.user or self.server_id):
            raise ValueError("a revocation says of whom")


class PutRoute(RouteMessage, frozen=True, kw_only=True, tag_field="op", tag="put"):
    """Add a route, or replace the one with its prefix."""

    route: Route


class DeleteRoute(RouteMessage, frozen=True, kw_only=True, tag_field="op", tag="delete"):
    """Remove the route with this host and prefix. More specific ones stay."""

    prefix: str
    host: HostName = ""


class Revoke(RouteMessage, frozen=True, kw_only=True, tag_field="op", tag="revoke"):
    """Apply a revocation."""

    revocation: Revocation


Change = PutRoute | DeleteRoute | Revoke


class RouteTable(RouteMessage, frozen=True, kw_only=True):
    """The whole table as of `number`. Receiving it, a proxy rechecks every cached verdict.

    One that is older than the proxy's of the same epoch came late, and is answered as one that does
    not fit.

    Attributes:
        keep: Routes (host and prefix) that stay as the proxy has them where this table has none:
            the hub does not know them and is not sure yet that nobody uses them.
    """

    epoch: str
    number: Number
    routes: list[Route]
    keep: list[str] = []


class RouteChanges(RouteMessage, frozen=True, kw_only=True):
    """The changes after `base`, in order; the table is at `number` once they are applied."""

    epoch: str
    base: Number
    number: Number
    changes: list[Change]

    def __post_init__(self) -> None:
        if self.number < self.base + bool(self.changes):
            raise ValueError("changes lead to a higher number")


class TableStatus(WireReply):
    """Where a proxy's table stands. `epoch` is empty before the first table."""

    epoch: str
    number: int
    routes: int

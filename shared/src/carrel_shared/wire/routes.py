"""The proxies' route table and how the hub pushes it (architecture decision 8).

The hub numbers every change. `epoch` names the lineage of its database and is renewed when a
backup is restored; `number` grows by one with each change. A proxy whose epoch and number do not
fit what it is sent answers 409 with its own `TableStatus`, and is then sent the whole table.
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, FailFast, Field
from pydantic.dataclasses import dataclass

from carrel_shared.wire.base import HostId, ServerId, WireReply, WireRequest

HostName = Annotated[str, Field(pattern=r"^$|^(\*\.)?[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")]
"""A host as routes are found by: lower case, no port, no trailing dot."""

Origin = Annotated[str, Field(pattern=r"^$|^https?://[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]+)?$")]
"""An origin as browsers write it."""


# A table has tens of thousands of these two: as dataclasses with slots they take half the memory
# of models, are compared in half the time, and are as strict as any other `WireRequest`.
@dataclass(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Access:
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

    server_id: ServerId
    client_id: str
    secret: str = Field(repr=False)
    csrf: Literal["origin", "app"] = "origin"
    origin: Origin = ""
    hub_origin: Origin = ""


@dataclass(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Route:
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
    targets: Annotated[list[str], FailFast()] = Field(min_length=1)
    peer_uid: int | None = None
    host_id: HostId | None = None
    access: Access | None = None
    server: bool = False
    stock_client_id: str = ""


class Revocation(WireRequest):
    """Access that ended: cached verdicts are dropped and open sockets cut. Any one field is set.

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
    server_id: ServerId | None = None
    ask_first: bool = False


class PutRoute(WireRequest):
    """Add a route, or replace the one with its prefix."""

    op: Literal["put"] = "put"
    route: Route


class DeleteRoute(WireRequest):
    """Remove the route with this host and prefix. More specific ones stay."""

    op: Literal["delete"] = "delete"
    prefix: str
    host: HostName = ""


class Revoke(WireRequest):
    """Apply a revocation."""

    op: Literal["revoke"] = "revoke"
    revocation: Revocation


Change = PutRoute | DeleteRoute | Revoke


class RouteTable(WireRequest):
    """The whole table as of `number`. Receiving it, a proxy rechecks every cached verdict.

    One that is older than the proxy's of the same epoch came late, and is answered as one that does
    not fit.

    Attributes:
        keep: Routes (host and prefix) that stay as the proxy has them where this table has none:
            the hub does not know them and is not sure yet that nobody uses them.
    """

    # What differs from route to route is not worth looking for among strings that were seen before.
    # And it is needed as soon as a proxy has started (see `carrel_shared.deferred`).
    model_config = ConfigDict(cache_strings="keys", defer_build=False)

    epoch: str
    number: int
    routes: Annotated[list[Route], FailFast()]  # one thing that is wrong is enough to be told
    keep: list[str] = []


class RouteChanges(WireRequest):
    """The changes after `base`, in order; the table is at `number` once they are applied."""

    epoch: str
    base: int
    number: int
    changes: Annotated[list[Change], FailFast()]


class TableStatus(WireReply):
    """Where a proxy's table stands. `epoch` is empty before the first table."""

    epoch: str
    number: int
    routes: int

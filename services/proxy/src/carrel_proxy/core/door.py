"""The door of a guarded route: names, paths and addresses by which browsers sign in to it. Pure.

Where all share one host, cookies lie below the server's prefix. Where a server has a host of its
own, with TLS, they are `__Host-` cookies (RFC 6265bis 4.1.3.2), which no other host can set.
"""

from dataclasses import dataclass, field

from carrel_shared.wire.routes import Access

CALLBACK = b"oauth_callback"
LOGOUT = b"logout"

_HOST_COOKIE = "__Host-"


@dataclass(frozen=True, slots=True)
class Door:
    """What signing in at one route needs to know.

    Attributes:
        access: As the hub has it.
        prefix: The route's prefix; where a browser may go on to lies below.
        hub: Where the hub's pages are: a path, with the origin before it where that is another.
        session_cookie: The cookie with the browser's token.
        attempts_cookie: The cookie that counts sign-ins, to end a loop of them.
        cookie_path: The path of both.
        callback_path: The path of the cookie of a sign-in under way.
        redirect_uri: Where the hub sends the browser back to.
        own_host: Only this host can have set our cookies, so they prove who set them.
        checks_origin: What pages of other origins send with a cookie is refused here.
    """

    access: Access = field(repr=False)
    prefix: str
    hub: str
    session_cookie: bytes
    attempts_cookie: bytes
    cookie_path: str
    callback_path: str
    redirect_uri: str
    own_host: bool
    checks_origin: bool

    def state_cookie(self, state: str) -> str:
        """Return the name of a sign-in's cookie: one each, so several tabs may sign in at once."""
        start = _HOST_COOKIE if self.own_host else ""
        return f"{start}carrel-oauth-state-{self.access.server_id}-{state[:8]}"

    def is_secure(self, *, https: bool) -> bool:
        """Whether our cookies are for TLS alone; `https` says how the request came."""
        return self.access.origin.startswith("https:") if self.access.origin else https


def open_door(access: Access, prefix: str, hub_prefix: str) -> Door:
    """Return the door of a route."""
    own_host = access.origin.startswith("https:")
    start = _HOST_COOKIE if own_host else ""
    callback = f"{prefix}{CALLBACK.decode('ascii')}"
    return Door(
        access=access,
        prefix=prefix,
        hub=f"{access.hub_origin}{hub_prefix}",
        session_cookie=f"{start}carrel-session-{access.server_id}".encode("ascii"),
        attempts_cookie=f"{start}carrel-attempts-{access.server_id}".encode("ascii"),
        cookie_path="/" if own_host else prefix,
        callback_path="/" if own_host else callback,
        redirect_uri=f"{access.origin}{callback}",
        own_host=own_host,
        checks_origin=access.csrf == "origin",
    )

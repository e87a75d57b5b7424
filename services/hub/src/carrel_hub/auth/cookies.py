"""Cookies, read from the raw header: a name that is sent twice was put there by a neighbour.

All of an installation is one origin to a browser, so a page of somebody's server can set cookies
of our names for paths of its own. They cannot be kept out, but they can be told by their number.
"""

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

LOGIN_COOKIE = "jupyterhub-hub-login"
SESSION_ID_COOKIE = "jupyterhub-session-id"
XSRF_COOKIE = "_xsrf"

_SESSION_ID_LENGTHS = range(16, 65)


def cookie_values(request: Request, name: str) -> list[str]:
    """Return every value that was sent for one cookie name, in order (RFC 6265 5.4)."""
    found = []
    for header in request.headers.getlist("cookie"):
        for pair in header.split(";"):
            key, equals, value = pair.partition("=")
            if equals and key.strip() == name:
                found.append(value.strip().removeprefix('"').removesuffix('"'))
    return found


def single_cookie(request: Request, name: str) -> str | None:
    """Return a reserved cookie's value; two of one name count as none."""
    values = cookie_values(request, name)
    return values[0] if len(values) == 1 and values[0] else None


def session_id(request: Request) -> str | None:
    """Return the browser's session id, if it has one that could be ours."""
    value = single_cookie(request, SESSION_ID_COOKIE)
    if value and len(value) in _SESSION_ID_LENGTHS and value.isascii() and value.isalnum():
        return value
    return None


def is_crowded(request: Request) -> bool:
    """Whether a neighbour has put a second sign-in beside the hub's."""
    return any(len(cookie_values(request, name)) > 1 for name in (LOGIN_COOKIE, SESSION_ID_COOKIE))


@dataclass(frozen=True, slots=True)
class CookieJar:
    """Sets and clears the hub's cookies with the paths that belong to them.

    Attributes:
        base_url: Path of the whole installation, where servers see the session id.
        hub_prefix: The hub's own path.
        secure: The browser came over https.
        domain: With one domain per user, the hub's host: what is above all of them.
        own_host: Nobody else's pages are on the hub's host, so our sign-in is kept to it: a cookie
            that no other host below the domain can set.
    """

    base_url: str
    hub_prefix: str
    secure: bool
    domain: str | None = None
    own_host: bool = False

    @property
    def login_cookie(self) -> str:
        """The name of the cookie that signs a browser in."""
        return f"__Host-{LOGIN_COOKIE}" if self.own_host else LOGIN_COOKIE

    @property
    def login_path(self) -> str:
        return "/" if self.own_host else self.hub_prefix

    def set_login(self, response: Response, value: str, *, max_age: int) -> None:
        """Sign the browser in, for `max_age` seconds."""
        response.set_cookie(
            self.login_cookie,
            value,
            max_age=max_age,
            path=self.login_path,
            secure=self.secure,
            httponly=True,
            samesite="lax",
        )

    def set_session_id(self, response: Response, value: str, *, max_age: int) -> None:
        """Tell the servers which browser this is, for `max_age` seconds."""
        response.set_cookie(
            SESSION_ID_COOKIE,
            value,
            max_age=max_age,
            path=self.base_url,
            domain=self.domain,
            secure=self.secure,
            httponly=True,
            samesite="lax",
        )

    def set_xsrf(self, response: Response, value: str, *, max_age: int | None) -> None:
        """Set the token against forged requests. Scripts of our pages may read it."""
        response.set_cookie(
            XSRF_COOKIE,
            value,
            max_age=max_age,
            path=self.hub_prefix,
            secure=self.secure,
            httponly=False,
            samesite="lax",
        )

    def clear_login(self, response: Response) -> None:
        """Take a sign-in away that is worth nothing any more."""
        response.delete_cookie(
            self.login_cookie,
            path=self.login_path,
            secure=self.secure,
            httponly=True,
            samesite="lax",
        )

    def clear(self, response: Response) -> None:
        """Forget the browser."""
        for name, path, domain in (
            (self.login_cookie, self.login_path, None),
            (SESSION_ID_COOKIE, self.base_url, self.domain),
            (XSRF_COOKIE, self.hub_prefix, None),
        ):
            response.delete_cookie(
                name, path=path, domain=domain, secure=self.secure, httponly=True, samesite="lax"
            )

    def clear_strays(self, response: Response, path: str) -> None:
        """Forget what may lie beside our cookies: the same names at every path above `path`."""
        parts = path.strip("/").split("/")
        above = {"/", *(f"/{'/'.join(parts[:n])}" for n in range(1, len(parts) + 1))}
        above |= {f"{place}/" for place in above if place != "/"}
        own = {
            (LOGIN_COOKIE, self.hub_prefix, None),
            (SESSION_ID_COOKIE, self.base_url, self.domain),
        }
        for name in (LOGIN_COOKIE, SESSION_ID_COOKIE):
            for domain in dict.fromkeys((None, self.domain)):
                for place in sorted(above):
                    if (name, place, domain) not in own:
                        response.delete_cookie(name, path=place, domain=domain, secure=self.secure)

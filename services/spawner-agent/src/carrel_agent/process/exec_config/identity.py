"""Who a request comes from, as the proxy in front says.

The proxy proves itself with `X-Carrel-Secret` and names the visitor in `X-Carrel-User`. Jupyter's
stock provider would take an injected token for an API client and switch its XSRF and Origin checks
off; here they stay on for everybody who came by cookie.
"""

from __future__ import annotations

import hmac
import json
import typing as t

from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.auth.identity import IdentityProvider, User
from jupyter_server.base.handlers import JupyterHandler
from tornado.web import HTTPError, RequestHandler
from traitlets import Unicode, default

SECRET_HEADER = "X-Carrel-Secret"  # noqa: S105 - the header's name
USER_HEADER = "X-Carrel-User"
AUTH_HEADER = "X-Carrel-Auth"


def parse_visitor(text: str) -> User | None:
    """Return the visitor in an `X-Carrel-User` header, or None if it holds none.

    The header is a JSON object in ASCII: `name`, and at will `display_name` and more.
    """
    try:
        record = json.loads(text)
    except ValueError:
        return None
    if not isinstance(record, dict):
        return None
    name, display = record.get("name"), record.get("display_name")
    if not isinstance(name, str) or not name:
        return None
    shown = display if isinstance(display, str) and display.strip() else name
    initials = "".join(word[0] for word in shown.split()[:2]).upper()
    return User(username=name, name=shown, display_name=shown, initials=initials)


def build_provider(secret: str, hub_prefix: str) -> type[IdentityProvider]:
    """Return the class a server is given as its `identity_provider_class`.

    A class of its own for each server, since jupyter_server makes the instance itself and the
    secret should be in no configuration that an extension might print.
    """
    expected = secret.encode("ascii")
    if not expected:
        raise ValueError("a server needs a secret: without one anybody could be anybody")

    class CarrelIdentityProvider(IdentityProvider):  # type: ignore[misc]
        """Believes the proxy that knows the secret, and nothing else."""

        # Hides the configurable trait: there is no token to log in with, and none to print.
        token = Unicode("", read_only=True)
        need_token = False
        token_generated = False

        @default("updatable_fields")  # type: ignore[untyped-decorator]
        def _nothing_to_update(self) -> list[str]:
            """Who somebody is comes with each request, so there is nothing to keep here."""
            return []

        def get_user(self, handler: RequestHandler) -> User | None:
            """Return the visitor, or None for a request that did not come through the proxy.

            That is the agent asking whether the server is up, which needs no identity.

            Raises:
                HTTPError: 403 for a request with the wrong secret or without a visitor. A redirect
                    to the sign-in would come back here, round and round.
            """
            headers = handler.request.headers
            presented = headers.get(SECRET_HEADER)
            if presented is None:
                return None
            if not hmac.compare_digest(presented.encode("utf-8", "replace"), expected):
                raise HTTPError(
                    403, "the proxy's key is not this server's; reload, or restart the server"
                )
            user = parse_visitor(headers.get(USER_HEADER, ""))
            if user is None:
                raise HTTPError(403, "the proxy did not say who is visiting")
            # What IdentityProvider.is_token_authenticated reads: XSRF and Origin are checked
            # unless the client sent a token of its own, which no other site's page can do.
            by_token = headers.get(AUTH_HEADER) == "token"
            handler._token_authenticated = by_token
            return user

        def is_token_authenticated(self, handler: RequestHandler) -> bool:
            return bool(getattr(handler, "_token_authenticated", False))

        def get_handlers(self) -> list[tuple[str, object]]:
            return [
                (r"/login", _redirect_to(f"{hub_prefix}login")),
                (r"/logout", _redirect_to(f"{hub_prefix}logout")),
            ]

        def get_token(self, handler: RequestHandler) -> None:
            """Return None: a `?token=` or Authorization header means nothing here."""

        def get_user_cookie(self, handler: RequestHandler) -> None:
            """Return None: Jupyter's own login cookie would outlive what the hub decides."""

        def set_login_cookie(self, handler: RequestHandler, user: User) -> None:
            """Set none."""

        def clear_login_cookie(self, handler: RequestHandler) -> None:
            """Clear none, since there is none."""

        def validate_security(self, app: t.Any, ssl_options: t.Any = None) -> None:
            """Say nothing: the socket's mode and the proxy's rules are the agent's business."""

    return CarrelIdentityProvider


def _redirect_to(url: str) -> type[JupyterHandler]:
    class RedirectToHub(JupyterHandler):  # type: ignore[misc]
        """Signing in and out happens at the hub."""

        @allow_unauthenticated  # type: ignore[untyped-decorator]
        def get(self) -> None:
            self.redirect(url)

    return RedirectToHub

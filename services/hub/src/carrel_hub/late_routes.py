"""Routes of FastAPI that are built when they are first asked for.

FastAPI looks at the signature of an endpoint and builds what reads its arguments as the route is
declared, and once more for each application that includes it: for two hundred routes that is a
fifth of a service's start. Its first answer needs one of them.
"""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette._utils import get_route_path
from starlette.routing import Match
from starlette.types import Scope


class LateRoute(APIRoute):
    """A route like any other, from the moment at which something of it is looked at.

    Args:
        path: As for `APIRoute`, and so are the options.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        self._declared = (path, endpoint, options)
        self._begins = path.partition("{")[0]
        self._is_built = False

    def below(self, prefix: str) -> "LateRoute":
        """Return the same route at a longer path."""
        path, endpoint, options = self._declared
        return type(self)(prefix + path, endpoint, **options)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether a request is for this route. It is built for those alone that may well be."""
        if not get_route_path(scope).startswith(self._begins):
            return Match.NONE, {}
        return super().matches(scope)

    def __getattr__(self, name: str) -> Any:
        # Called for what is not there, which is everything of `APIRoute` until it is built.
        if name.startswith("__") or self._is_built:
            raise AttributeError(f"a route has no {name!r}")
        self._is_built = True
        path, endpoint, options = self._declared
        super().__init__(path, endpoint, **options)
        return getattr(self, name)


class LateRouter(APIRouter):
    """A router of such routes. To be put into an application by `add_routes`."""

    def __init__(self, *, route_class: type[LateRoute] = LateRoute, **options: Any) -> None:
        super().__init__(route_class=route_class, **options)

    def take(self, other: "LateRouter", prefix: str = "") -> None:
        """Have the routes of another router besides, as if they had been declared here."""
        self.routes.extend(_below(other, prefix))


def add_routes(app: FastAPI, router: LateRouter, prefix: str = "") -> None:
    """Have an application answer by a router's routes below a path without a slash at its end."""
    app.router.routes.extend(_below(router, prefix))


def _below(router: LateRouter, prefix: str) -> list[LateRoute]:
    return [route.below(prefix) for route in router.routes if isinstance(route, LateRoute)]

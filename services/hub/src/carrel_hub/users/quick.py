"""The shortest way to what is asked most: who somebody is, and starting and stopping a server.

Every single-user server and every service asks who its visitor is, and a class that begins asks for
a hundred servers. The framework takes about as long to find its way to those few functions as they
take, so requests for them are met before the framework. The functions are the same, and so are
those that answer for their faults; whatever is not exactly such a request goes the whole way.
"""

from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import cast

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from carrel_hub.auth.browser import hub_of
from carrel_hub.auth.subjects import current_subject, require_somebody
from carrel_hub.users.rest import get_user, whoami
from carrel_hub.users.servers import start_server, stop_server

Way = Callable[[Request, str], Awaitable[Response]]
"""Answers a request about the user of a name; there is none in some paths."""


async def _whoami(request: Request, _name: str) -> Response:
    return await whoami(request, await require_somebody(request))


async def _get_user(request: Request, name: str) -> Response:
    return await get_user(name, request, hub_of(request), await current_subject(request))


async def _start(request: Request, name: str) -> Response:
    return await start_server(name, request, hub_of(request), await current_subject(request))


async def _stop(request: Request, name: str) -> Response:
    return await stop_server(name, request, hub_of(request), await current_subject(request))


_WAYS: dict[tuple[str, str], tuple[Way, Callable[..., object], str]] = {
    ("GET", "/user"): (_whoami, whoami, "/user"),
    ("GET", "/users/*"): (_get_user, get_user, "/users/{name}"),
    ("POST", "/users/*/server"): (_start, start_server, "/users/{name}/server"),
    ("DELETE", "/users/*/server"): (_stop, stop_server, "/users/{name}/server"),
}
"""By method and path, a star for the name: what answers, and what the framework's route says."""


class Quick:
    """Answers those requests; everything else is for `app`.

    Args:
        prefix: Of the API's paths.
    """

    def __init__(self, app: FastAPI, prefix: str) -> None:
        self._app = app
        self._prefix = prefix
        self._ways = {
            asked: (way, SimpleNamespace(endpoint=endpoint, path=f"{prefix}{path}"))
            for asked, (way, endpoint, path) in _WAYS.items()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            shape, name = _split(scope["path"].removeprefix(self._prefix))
            found = self._ways.get((scope["method"], shape))
            if found is not None:
                way, scope["route"] = found
                scope["app"] = self._app
                response = await self._answer(way, Request(scope, receive), name)
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _answer(self, way: Way, request: Request, name: str) -> Response:
        try:
            return await way(request, name)
        except Exception as error:
            for kind in type(error).__mro__:
                if (handler := self._app.exception_handlers.get(kind)) is not None:
                    return await cast("Awaitable[Response]", handler(request, error))
            raise


def _split(path: str) -> tuple[str, str]:
    """Return a path with a star in place of the user's name, and the name."""
    if not path.startswith("/users/"):
        return path, ""
    name, slash, rest = path[7:].partition("/")
    return (f"/users/*{slash}{rest}", name) if name else (path, "")

"""The shortest way to the answer that is asked for most: `GET {hub}api/user`.

Every single-user server and every service asks who its visitor is. The framework takes about as
long to find its way to that one function as the function takes, so requests for it are met before
the framework. The function is the same; whatever does not succeed goes the whole way, which says
what is wrong.
"""

from types import SimpleNamespace

from fastapi import FastAPI
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from carrel_hub.auth.subjects import require_somebody
from carrel_hub.users.rest import whoami


class QuickWhoami:
    """Answers that one request; everything else is for `app`.

    Args:
        path: Of the endpoint.
    """

    def __init__(self, app: FastAPI, path: str) -> None:
        self._app = app
        self._path = path
        self._route = SimpleNamespace(endpoint=whoami, path=path)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == self._path and scope["method"] == "GET":
            scope["app"] = self._app
            request = Request(scope, receive)
            try:
                response = await whoami(request, await require_somebody(request))
            except Exception:  # noqa: S110 - it is met again, where faults are answered
                pass
            else:
                scope["route"] = self._route
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)

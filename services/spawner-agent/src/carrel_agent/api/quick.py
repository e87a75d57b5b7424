"""The shortest way for a start, which somebody waits for: it is met before the framework.

What is not exactly such a request, or says something wrong, goes the whole way and is answered
there.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Any, cast

from fastapi import FastAPI
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from carrel_agent.api.routes import MAX_WAIT_SECONDS, start_server
from carrel_agent.errors import AgentError
from carrel_shared.wire.servers import ServerSpec

_PATH = re.compile(r"/agent/v1/servers/([0-9a-f]{12})")
_QUERY = re.compile(rb"(?:wait=([0-9]{1,3}(?:\.[0-9]{1,3})?))?")
MAX_BODY_BYTES = 1 << 20

Handler = Callable[[Request, Exception], Awaitable[Response]]


class Quick:
    """Answers starts; everything else is for `app`."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = _asked(scope)
        if found is None:
            await self._app(scope, receive, send)
            return
        body = await _read(receive)
        try:
            spec = ServerSpec.model_validate_json(body)
        except ValidationError:
            await self._app(scope, _again(body), send)
            return
        scope["app"] = self._app
        response = await self._answer(Request(scope, receive), spec, *found)
        await response(scope, receive, send)

    async def _answer(
        self, request: Request, spec: ServerSpec, server_id: str, seconds: float
    ) -> Response:
        try:
            report = await start_server(request, server_id, spec, seconds)
        except AgentError as error:
            handler = cast("Handler", self._app.exception_handlers[AgentError])
            return await handler(request, error)
        content = report.model_dump_json().encode()
        return Response(content, status_code=202, media_type="application/json")


def _asked(scope: Scope) -> tuple[str, float] | None:
    """Return which server is to be started and how long it is waited for; None if it is not that.

    The hub says how long its request is, so none is read here that is longer than it may be.
    """
    if scope["type"] != "http" or scope["method"] != "PUT":
        return None
    path, query = _PATH.fullmatch(scope["path"]), _QUERY.fullmatch(scope["query_string"])
    if path is None or query is None:
        return None
    length = dict[bytes, bytes](scope["headers"]).get(b"content-length", b"")
    seconds = float(query[1] or 0)
    if not length.isdigit() or int(length) > MAX_BODY_BYTES or seconds > MAX_WAIT_SECONDS:
        return None
    return path[1], seconds


async def _read(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message: dict[str, Any] = dict(await receive())
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def _again(body: bytes) -> Receive:
    """Return what gives a body that was read already."""

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive

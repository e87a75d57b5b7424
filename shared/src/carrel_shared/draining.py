"""How one of several replicas ends without losing a request.

From its first signal on it says in every answer that it is ending, and closes the connection. The
proxies then ask another one. Meanwhile it takes and answers all it is asked, new connections
included: what was on its way when it began to end is not lost. It ends when nobody is connected any
more, which takes as long as a proxy keeps an unused connection.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

DRAINING_FIELD = (b"x-carrel-draining", b"1")

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]


class Draining:
    """An ASGI application that can say that it is ending."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._begun = False

    def begin(self) -> None:
        """Say so from now on, in answers to requests under way too."""
        self._begun = True

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        async def send_with_fields(message: _Message) -> None:
            if self._begun and message["type"] == "http.response.start":
                fields = [*message.get("headers", ()), DRAINING_FIELD, (b"connection", b"close")]
                message = {**message, "headers": fields}
            await send(message)

        await self._app(scope, receive, send_with_fields)

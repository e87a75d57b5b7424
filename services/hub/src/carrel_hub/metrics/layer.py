"""Times every request of the public application."""

from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from carrel_hub.context import Hub


class Measured:
    """Notes how long each answer took, by the function that made it, never by its path."""

    def __init__(self, app: ASGIApp, hub: Hub) -> None:
        self._app = app
        self._note = hub.measures.answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = perf_counter()
        status = 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            endpoint = getattr(scope.get("route"), "endpoint", None)
            self._note(scope["method"], endpoint, status, perf_counter() - began)

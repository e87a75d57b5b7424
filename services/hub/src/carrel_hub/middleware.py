"""What happens to every request and response, in plain ASGI: nothing here buffers a body."""

import ipaddress
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import structlog
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from carrel_hub import JUPYTERHUB_API_VERSION, __version__
from carrel_shared.service_auth import clean_request_id
from carrel_shared.wire import REQUEST_ID_HEADER

MAX_BODY_BYTES = 1 << 20
"""No form and no API call of the hub is larger."""

TOO_LARGE = "body_too_large"
"""Set in `scope["state"]` of a request that was cut off for it."""

_REQUEST_ID = REQUEST_ID_HEADER.lower().encode()
_VERSIONS = (
    (b"x-jupyterhub-version", JUPYTERHUB_API_VERSION.encode()),
    (b"x-carrel-version", __version__.encode()),
    (b"x-content-type-options", b"nosniff"),
)


def _with(headers: Iterable[tuple[bytes, bytes]], *more: tuple[bytes, bytes]) -> list[Any]:
    """Return headers with those of `more` that are not among them."""
    found = list(headers)
    names = {name for name, _ in found}
    found += [header for header in more if header[0] not in names]
    return found


class RequestIdentity:
    """Binds the request id to the log, names our versions and the id in every response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = clean_request_id(Headers(scope=scope).get(REQUEST_ID_HEADER))
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                named = (_REQUEST_ID, request_id.encode("latin-1"))
                message["headers"] = _with(message["headers"], *_VERSIONS, named)
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            await self._app(scope, receive, send_with_headers)


class ForwardedByProxy:
    """Believes what a proxy says of the browser. Only for the listener that proxies use."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            client = client_address(headers.getlist("x-forwarded-for"))
            if client is not None:
                scope["client"] = (client, 0)
            scheme = _last(headers.getlist("x-forwarded-proto"))
            if scheme in ("http", "https"):
                scope["scheme"] = scheme
        await self._app(scope, receive, send)


def client_address(forwarded_for: Iterable[str]) -> str | None:
    """Return the browser's address out of the `X-Forwarded-For` headers of a trusted proxy.

    That is the last one, which the proxy itself saw; when a load balancer on the same machine
    stands before the proxy, it is the one before. None when it is no address.
    """
    return _client_address(",".join(forwarded_for))


@lru_cache(1024)
def _client_address(forwarded_for: str) -> str | None:
    addresses = []
    for part in forwarded_for.split(","):
        try:
            addresses.append(ipaddress.ip_address(part.strip().strip("[]")))
        except ValueError:
            addresses.clear()  # whatever stands left of nonsense, nobody vouches for
    if not addresses:
        return None
    remote = [address for address in addresses if not address.is_loopback]
    return str((remote or addresses)[-1])


def _last(values: Iterable[str]) -> str:
    return ",".join(values).rpartition(",")[2].strip().lower()


class ApiHeaders:
    """What every answer of the REST API carries; and OPTIONS, which needs no sign-in."""

    def __init__(self, app: ASGIApp, hub_prefix: str) -> None:
        self._app = app
        policy = (
            f"frame-ancestors 'none'; report-uri {hub_prefix}security/csp-report;"
            " default-src 'none'"
        )
        self._headers = (
            (b"content-security-policy", policy.encode()),
            (b"access-control-allow-headers", b"accept, content-type, authorization"),
            (b"cache-control", b"no-store"),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = _with(message["headers"], *self._headers)
            await send(message)

        if scope["method"] == "OPTIONS":
            await Response(status_code=200)(scope, receive, send_with_headers)
            return
        await self._app(scope, receive, send_with_headers)


class BodyLimit:
    """Refuses bodies larger than `MAX_BODY_BYTES`, declared or not.

    Args:
        unread: How the paths begin below which nobody reads a body: what is saved to a server that
            does not run may be large, and is told that.
    """

    def __init__(self, app: ASGIApp, unread: tuple[str, ...] = ()) -> None:
        self._app = app
        self._unread = unread

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(self._unread):
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "0")
        if not (declared.isascii() and declared.isdigit()) or int(declared) > MAX_BODY_BYTES:
            await _too_large(send)
            return
        seen = 0

        async def limited() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > MAX_BODY_BYTES:
                scope.setdefault("state", {})[TOO_LARGE] = True
                return {"type": "http.disconnect"}
            return message

        await self._app(scope, limited, send)


async def _too_large(send: Send) -> None:
    body = b'{"status": 413, "message": "The request body is too large."}'
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": body})

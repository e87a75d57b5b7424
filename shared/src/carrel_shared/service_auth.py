"""How Carrel's services know each other.

Each pair of services shares a random key that the caller sends as a bearer token. `ServiceGate`
stands in front of a whole ASGI application: nothing behind it is reachable without a key, and a
service without keys refuses to start.
"""

import hmac
import json
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import structlog

from carrel_shared.wire import OLDEST_WIRE_VERSION, REQUEST_ID_HEADER, WIRE_HEADER, WIRE_VERSION

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

MIN_KEY_LENGTH = 32
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class EmptyKeyError(ValueError):
    """A service was given no key, or one too short to be a secret."""


def new_key() -> str:
    """Return a fresh service key: 256 random bits."""
    return secrets.token_urlsafe(32)


def check_key(name: str, key: str) -> None:
    """Refuse a key that is missing or too short.

    Raises:
        EmptyKeyError: Naming the setting that is wrong.
    """
    if len(key) < MIN_KEY_LENGTH:
        raise EmptyKeyError(f"{name}: a service key needs at least {MIN_KEY_LENGTH} characters")


def new_request_id() -> str:
    """Return an id under which one request is found in the logs of all three services."""
    return secrets.token_hex(8)


def clean_request_id(value: str | None) -> str:
    """Return `value` if it is a well-formed request id, else a new one."""
    return value if value and _REQUEST_ID.fullmatch(value) else new_request_id()


def service_headers(key: str, request_id: str | None = None) -> dict[str, str]:
    """Return the headers of an internal call.

    Without `request_id` the one bound to the current log context is passed on.
    """
    if request_id is None:
        request_id = structlog.contextvars.get_contextvars().get("request_id")
    return {
        "Authorization": f"Bearer {key}",
        WIRE_HEADER: str(WIRE_VERSION),
        REQUEST_ID_HEADER: clean_request_id(request_id),
    }


class ServiceGate:
    """An ASGI wrapper that lets only known services in.

    Args:
        app: What is guarded.
        keys: Caller name (`hub`, `proxy:edge`, `agent:local`, `console`) to key. The name is left
            in `scope["state"]["caller"]`. None for a gate whose `caller` looks elsewhere.
        service: This service's name, for the message to a caller with a newer wire version.
        open_paths: Exact paths that need no key (a health check).

    Raises:
        EmptyKeyError: If there are no keys, or one is too short.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: Mapping[str, str] | None,
        service: str,
        open_paths: frozenset[str] = frozenset(),
    ) -> None:
        if keys is not None and not keys:
            raise EmptyKeyError(f"{service}: no caller has a key, so nobody could ever call it")
        for caller, key in (keys or {}).items():
            check_key(f"{service}: key of {caller}", key)
        self._app = app
        self._keys = {caller: key.encode() for caller, key in (keys or {}).items()}
        self._service = service
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # no internal API speaks WebSocket; the server answers 403
        headers = {name.lower(): value for name, value in scope["headers"]}
        request_id = clean_request_id(
            headers.get(REQUEST_ID_HEADER.lower().encode(), b"").decode("latin-1")
        )
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            if scope["path"] not in self._open_paths:
                shown = [value for name, value in scope["headers"] if name == b"authorization"]
                # Two of them could be read in two ways.
                caller = await self.caller(scope, shown[0] if len(shown) == 1 else b"")
                if caller is None:
                    reason = state.get("refusal", "a valid service key is needed")
                    await _refuse(send, 401, "unauthorized", reason)
                    return
                if (problem := self._wire_problem(headers)) is not None:
                    await _refuse(send, 400, "wire_version", problem)
                    return
                state["caller"] = caller
            await self._app(scope, receive, send)

    @staticmethod
    def say_why(scope: Scope, reason: str) -> None:
        """Have a caller that is refused told more than that."""
        scope["state"]["refusal"] = reason

    async def caller(self, _scope: Scope, authorization: bytes) -> str | None:
        """Return the name of whoever shows this; None to refuse it."""
        scheme, _, sent = authorization.partition(b" ")
        found = None
        if scheme.lower() == b"bearer":
            for caller, key in self._keys.items():  # all are compared: no early way out
                if hmac.compare_digest(sent, key):
                    found = caller
        return found

    def _wire_problem(self, headers: Mapping[bytes, bytes]) -> str | None:
        raw = headers.get(WIRE_HEADER.lower().encode(), b"").decode("latin-1")
        if not raw.isascii() or not raw.isdigit():
            return f"the header {WIRE_HEADER} must name the wire version the caller speaks"
        version = int(raw[:9])
        if version > WIRE_VERSION:
            return (
                f"the caller speaks wire version {version}, this {self._service} knows up to"
                f" {WIRE_VERSION}: upgrade {self._service}"
            )
        if version < OLDEST_WIRE_VERSION:
            return (
                f"the caller speaks wire version {version}, this {self._service} knows from"
                f" {OLDEST_WIRE_VERSION} on: upgrade the caller"
            )
        return None


async def _refuse(send: Send, status: int, code: str, message: str) -> None:
    body = json.dumps({"status": status, "code": code, "message": message}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

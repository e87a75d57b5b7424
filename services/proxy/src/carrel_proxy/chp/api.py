"""The REST API: routes are listed, added and deleted. An ASGI application, and its neighbours."""

import hmac
import json
import re
from typing import Any
from urllib.parse import parse_qsl

import structlog

from carrel_proxy.chp.metrics import Metrics
from carrel_proxy.chp.posted import MOST_BYTES, PostedError, read_route
from carrel_proxy.chp.shared import ChpShared
from carrel_proxy.chp.table import ChpTable, clean_key, parse_time
from carrel_proxy.core.head import is_host
from carrel_proxy.core.redaction import shown, shown_address
from carrel_proxy.engine.access_log import MOST_PATH
from carrel_proxy.errors import BadTargetError
from carrel_proxy.process.crew import CrewError

log = structlog.get_logger(__name__)

PREFIX = b"/api/routes"

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_METHODS = ("GET", "POST", "DELETE")
_SHOWN = re.compile(
    rb"token[ \t]+([^ \t]+)"
)  # anywhere in `Authorization`, as the original looks for it


class _Refusal(Exception):
    def __init__(self, status: int, text: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class RoutesApi:
    """`/api/routes`.

    Whoever calls must show the token before anything else is looked at.
    """

    def __init__(
        self, table: ChpTable, token: str | None, metrics: Metrics, shared: ChpShared
    ) -> None:
        self._table = table
        self._shared = shared
        self._token = token.encode("utf-8") if token is not None else None
        self._metrics = metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        try:
            status, value = await self._answer(scope, receive)
        except _Refusal as refusal:
            status, value = refusal.status, refusal.text
            _note_refusal(scope, refusal)
        except CrewError as error:
            log.error("route_not_in_force_everywhere", reason=str(error))
            status, value = 503, str(error)
        except Exception:
            log.exception("api_request_failed")
            status, value = 500, "the proxy has failed; its log says how"
        self._metrics.api[status] += 1
        await _reply(send, status, value)

    async def _answer(self, scope: Any, receive: Any) -> tuple[int, Any]:
        path: bytes = scope["raw_path"]
        if path != PREFIX and not path.startswith(PREFIX + b"/"):
            raise _Refusal(404, "there is nothing here but /api/routes")
        method = scope["method"]
        if method not in _METHODS:
            raise _Refusal(405, "routes are got, posted and deleted")
        self._check(scope["headers"])
        key = _key(path.removeprefix(PREFIX))
        if method == "POST":
            await self._post(key, await _body(receive))
            return 201, ""
        if method == "DELETE":
            self._metrics.api_route_delete += 1
            if not self._table.delete(key):
                raise _Refusal(404)
            await self._shared.delete(key)
            log.info("route_deleted", path=key)
            return 204, ""
        await self._shared.gather_activity()
        if path in (PREFIX, PREFIX + b"/"):
            listed = self._list(scope["query_string"])
            self._metrics.api_route_get += 1
            return 200, listed
        route = self._table.get(key)
        if route is None:
            raise _Refusal(404)
        return 200, route.shown()

    def _check(self, headers: list[tuple[bytes, bytes]]) -> None:
        if self._token is None:
            return
        values = [value for name, value in headers if name == b"authorization"]
        shown = _SHOWN.search(values[0]) if len(values) == 1 else None
        if shown is None or not hmac.compare_digest(shown.group(1), self._token):
            raise _Refusal(403)

    def _list(self, query: bytes) -> dict[str, dict[str, Any]]:
        asked = dict(reversed(parse_qsl(query.decode("latin-1"))))  # the first of each counts
        text = asked.get("inactiveSince") or asked.get("inactive_since")
        if not text:
            return self._table.shown()
        try:
            return self._table.shown(parse_time(text))
        except ValueError:
            raise _Refusal(400, "inactive_since is no ISO 8601 time") from None

    async def _post(self, key: str, body: bytes) -> None:
        try:
            data = read_route(body)
            self._table.put(key, data)
        except (PostedError, BadTargetError) as error:
            raise _Refusal(400, str(error)) from error
        await self._shared.put(key, data)
        self._metrics.api_route_add += 1
        log.info("route_added", path=key, target=data["target"].partition("?")[0])


class HttpsRedirect:
    """Sends every request to the same place over HTTPS."""

    def __init__(self, port: int) -> None:
        self._port = b"" if port == 443 else b":%d" % port

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        path: bytes = scope["raw_path"]
        if len(hosts) != 1 or not is_host(hosts[0]) or not path.startswith(b"/"):
            await _reply(send, 400, "the Host field is missing or malformed")
            return
        host = re.sub(rb":[0-9]+\Z", b"", hosts[0])
        query: bytes = scope["query_string"]
        location = b"https://%b%b%b" % (host, self._port, path + (b"?" + query if query else b""))
        headers = [(b"location", location), (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 301, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


def _key(path: bytes) -> str:
    if _BAD_ESCAPE.search(path):
        raise _Refusal(400, "the path has a malformed percent-escape")
    try:
        return clean_key(_ESCAPE.sub(lambda match: bytes((int(match.group(1), 16),)), path))
    except UnicodeDecodeError:
        raise _Refusal(400, "the path is not UTF-8") from None


def _note_refusal(scope: Any, refusal: _Refusal) -> None:
    """Log it: a hub whose token is another one is told nothing but 403."""
    reason = refusal.text or _PHRASES[refusal.status]
    path = shown_address(scope["raw_path"], MOST_PATH)
    log.warning(
        "api_request_refused",
        status=refusal.status,
        method=shown(scope["method"].encode("latin-1"), 20),
        path=path,
        reason=reason,
    )


_PHRASES = {403: "the token is missing or another one", 404: "there is no such route"}


async def _body(receive: Any) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Refusal(400, "the body ended in the middle")
        body += message.get("body", b"")
        if len(body) > MOST_BYTES:
            raise _Refusal(413, "the body is too large")
        if not message.get("more_body", False):
            return bytes(body)


async def _reply(send: Any, status: int, value: Any, kind: bytes = b"text/plain") -> None:
    headers = []
    if isinstance(value, str):
        body = value.encode("utf-8")
    else:
        body, kind = json.dumps(value).encode("ascii"), b"application/json"
    if body:
        headers.append((b"content-type", kind))
    if status != 204:
        headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

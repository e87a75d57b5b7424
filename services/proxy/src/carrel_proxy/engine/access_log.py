"""One line for each request and socket, when it ends, of a fixed set of fields.

Lines are written by a thread (`carrel_shared.lines`), so neither a full disk nor a blocked pipe
holds up a request. There are at most so many a second, of one address and in all; how many were
left out is said in the log now and then.
"""

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import structlog

from carrel_proxy.core.answers import Answer, Reason
from carrel_proxy.core.head import RequestHead
from carrel_proxy.core.redaction import HIDDEN, shown, shown_address
from carrel_proxy.engine.deadlines import TICK_SECONDS
from carrel_proxy.errors import BadRequestError
from carrel_shared.clock import Clock
from carrel_shared.lines import LineWriter

if TYPE_CHECKING:
    from carrel_proxy.engine.client import ClientConnection
    from carrel_proxy.engine.exchange import Exchange
    from carrel_proxy.engine.tunnel import Tunnel

log = structlog.get_logger(__name__)

EVENTS_A_SECOND = 100
"""How often each event of the log beside this one is written, by each worker."""
LINES_A_SECOND = 1000
SHARE_OF_ONE = 5
"""One address may write every fifth of them; a trusted proxy, which speaks for many, all."""
SAY_SECONDS = 10.0
"""How often it is said that lines were left out."""
MOST_PATH = 1024
MOST_TEXT = 200

_ADDRESSES = re.compile(rb"[0-9A-Fa-f:.,]+")

Value = str | int | float


class AccessLog:
    """Writes lines, if they are not too many.

    Args:
        failures_only: Leave out what went well: write what was answered with 500 or more, was cut
            short, or was refused as malformed.
        rate: Lines a second at most.
    """

    def __init__(
        self,
        lines: LineWriter,
        clock: Clock,
        *,
        failures_only: bool,
        as_json: bool,
        rate: int = LINES_A_SECOND,
    ) -> None:
        self._lines = lines
        self._clock = clock
        self._failures_only = failures_only
        self._as_json = as_json
        self._most = max(int(rate * TICK_SECONDS), 1)
        self._most_of_one = max(self._most // SHARE_OF_ONE, 1)
        self._written = 0
        self._by_peer: dict[bytes, int] = {}
        self._too_many = 0
        self._said = 0
        self._say_from = clock.monotonic()
        self._sockets: dict[Tunnel, tuple[bytes, dict[str, Value], float]] = {}

    @property
    def left_out(self) -> int:
        """Lines that were too many or could not be written."""
        return self._too_many + self._lines.left_out

    def tick(self) -> None:
        """Begin a new span of time."""
        self._written = 0
        self._by_peer.clear()
        now = self._clock.monotonic()
        if self.left_out > self._said and now >= self._say_from:
            count, self._said = self.left_out - self._said, self.left_out
            self._say_from = now + SAY_SECONDS
            log.warning("access_log_left_out", count=count)

    # --- what is logged ---

    def exchange_ended(self, exchange: "Exchange", status: int) -> None:
        """A request with a route has ended."""
        reason: str = getattr(exchange, "reason", "")
        failed = status >= 500 or reason in ("cut", Reason.REFUSED, Reason.TOO_SLOW)
        if self._may_write(exchange.client, failed=failed):
            fields = _of_exchange(exchange)
            fields |= {"status": status, "reason": reason, "sent": exchange.sent}
            fields["seconds"] = _since(exchange)
            self._write("request", fields)

    def answered(self, client: "ClientConnection", head: RequestHead, answer: Answer) -> None:
        """A request without a route was answered by the proxy itself."""
        if answer.reason is not Reason.HEALTH and self._may_write(
            client, failed=answer.status >= 500
        ):
            fields = _of_head(client, head)
            self._write("request", fields | {"status": answer.status, "reason": answer.reason})

    def refused(self, client: "ClientConnection", error: BadRequestError) -> None:
        """Something came that is no request that could go on. Nothing of it is shown."""
        if self._may_write(client, failed=True):
            why = shown(error.reason.encode(), MOST_TEXT)
            fields: dict[str, Value] = {"status": error.status, "why": why}
            self._write("request_refused", fields | _of_client(client))

    def socket_opened(self, tunnel: "Tunnel", exchange: "Exchange") -> None:
        """Keep what is known now for the line that is written at the end."""
        if not self._failures_only:
            fields = _of_exchange(exchange)
            if tunnel.grant is not None:
                fields["user"] = shown(tunnel.grant.user.encode("utf-8", "replace"), MOST_TEXT)
            self._sockets[tunnel] = (exchange.client.peer, fields, exchange.began)

    def socket_ended(self, tunnel: "Tunnel", now: float) -> None:
        """A WebSocket has ended."""
        kept = self._sockets.pop(tunnel, None)
        if kept is None:
            return
        peer, fields, began = kept
        if self._has_room(peer, trusted=False):
            fields |= {"received": tunnel.received, "sent": tunnel.sent}
            self._write("websocket", fields | {"status": 101, "seconds": round(now - began, 3)})

    # --- whether, and how ---

    def _may_write(self, client: "ClientConnection", *, failed: bool) -> bool:
        if self._failures_only and not failed:
            return False
        return self._has_room(client.peer, trusted=client.trusted)

    def _has_room(self, peer: bytes, *, trusted: bool) -> bool:
        if self._written >= self._most:
            self._too_many += 1
            return False
        if not trusted:
            written = self._by_peer.get(peer, 0)
            if written >= self._most_of_one:
                self._too_many += 1
                return False
            self._by_peer[peer] = written + 1
        self._written += 1
        return True

    def _write(self, event: str, fields: Mapping[str, Value]) -> None:
        moment = self._clock.now()
        kept = {name: value for name, value in fields.items() if value != ""}
        if self._as_json:
            line = {"service": "proxy", "level": "info", "timestamp": moment.isoformat()}
            text = json.dumps({"event": event, **kept, **line})
        else:
            words = " ".join(f"{name}={_quoted(value)}" for name, value in kept.items())
            text = f"{moment:%H:%M:%S} proxy  INFO    {event} {words}"
        self._lines.write(text + "\n")


def open_access_log(
    which: str, lines: LineWriter | None, clock: Clock, *, as_json: bool, rate: int = LINES_A_SECOND
) -> AccessLog | None:
    """Return the log that is set: `off`, `errors` or `all`; None if there is none to keep."""
    if which == "off" or lines is None:
        return None
    return AccessLog(lines, clock, failures_only=which == "errors", as_json=as_json, rate=rate)


def _of_client(client: "ClientConnection") -> dict[str, Value]:
    return {
        "peer": shown(client.peer, MOST_TEXT),
        "request_id": shown(client.request_id, MOST_TEXT),
    }


def _of_head(client: "ClientConnection", head: RequestHead) -> dict[str, Value]:
    fields: dict[str, Value] = {
        "method": shown(head.method, 20),
        "path": shown_address(head.target, MOST_PATH),
        **_of_client(client),
    }
    if client.trusted and (said := head.special.get(b"x-forwarded-for")):
        chain = b",".join(said).replace(b" ", b"")
        fields["forwarded_for"] = shown(chain if _ADDRESSES.fullmatch(chain) else HIDDEN, MOST_TEXT)
    if (referer := head.value(b"referer")) is not None:
        fields["referer"] = shown_address(referer, MOST_PATH)
    if (agent := head.value(b"user-agent")) is not None:
        fields["agent"] = shown(agent, MOST_TEXT)
    return fields


def _of_exchange(exchange: "Exchange") -> dict[str, Value]:
    client, route = exchange.client, exchange.route
    fields = _of_head(client, exchange.head)
    fields["route"] = shown(route.prefix.encode("utf-8", "replace"), MOST_TEXT)
    if client.grant is not None:
        fields["user"] = shown(client.grant.user.encode("utf-8", "replace"), MOST_TEXT)
    fields["received"] = exchange.received
    return fields


def _since(exchange: "Exchange") -> float:
    return round(exchange.client.edge.time() - exchange.began, 3) if exchange.began else 0.0


def _quoted(value: Value) -> str:
    text = str(value)
    return f'"{text}"' if " " in text or not text else text

"""One request and its response, on their way through.

A request is first decided on (by the client's connection), then sent on with `forward`, over a
connection that waited or a new one. The response is relayed as it comes. Whichever side is slower
holds the other one back. There is one end: `_finish` when all went well, `fail` while the client
has been sent nothing, `_cut` after that.
"""

from typing import TYPE_CHECKING

import structlog

from carrel_proxy.core.answers import Answer, Trouble, is_navigation, trouble_answer
from carrel_proxy.core.body import RequestBody, ResponseBody
from carrel_proxy.core.chunks import ChunkError
from carrel_proxy.core.framing import Body, onward_framing, response_body
from carrel_proxy.core.head import (
    END,
    RESPONSE_LIMITS,
    RequestHead,
    ResponseHead,
    parse_response,
)
from carrel_proxy.core.headers import response_bytes, response_fields
from carrel_proxy.core.troubles import GATEWAY_TIMEOUT, trouble_of
from carrel_proxy.core.websocket import check_accepted
from carrel_proxy.engine.deadlines import NEVER
from carrel_proxy.engine.routes import LiveRoute
from carrel_proxy.engine.upstream import Pool, UpstreamConnection
from carrel_proxy.errors import (
    BadRequestError,
    BadResponseError,
    BusyError,
    ProxyError,
    TargetAwayError,
    WrongPeerError,
)

if TYPE_CHECKING:
    from carrel_proxy.engine.client import ClientConnection

log = structlog.get_logger(__name__)

MOST_PENDING = 64 * 1024
"""Bytes of a body that wait in memory for a connection."""
MOST_INTERIM = 10
"""Interim responses to one request; more are a flood."""
JOIN_UP_TO = 16 * 1024
"""Up to this size, head and body are worth copying together into one write."""

MOST_REMEMBERED = 2048
"""Up to this size, a route's last response head is remembered."""

DRAINING = b"x-carrel-draining"
"""Set by a target that is ending, in all its responses."""

_IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"))


class Exchange:
    """A request in progress.

    Attributes:
        body: The request's body; None without one.
        keep_alive: After this response the client may send another request.
        answered: The client has been sent the beginning of a final response.
        over: Nothing more happens here.
        reason: Why the proxy answered by itself, or `cut`; not set where neither happened.
        began: When its head was there, by the loop's clock; 0 if nobody needs to know.
        sent: Bytes of the response's body so far.
    """

    reason: str

    __slots__ = (
        "_held_back",
        "_interim",
        "_onward_kind",
        "_partial",
        "_pending",
        "_request",
        "_response",
        "_reusable",
        "_status",
        "_tried",
        "_upstream",
        "answered",
        "began",
        "body",
        "client",
        "head",
        "keep_alive",
        "over",
        "reason",
        "route",
        "sent",
        "websocket",
    )

    def __init__(
        self,
        client: "ClientConnection",
        head: RequestHead,
        body: RequestBody | None,
        route: LiveRoute,
        *,
        websocket: bool,
        pending: bytes,
    ) -> None:
        self.client = client
        self.head = head
        self.body = body
        self.route = route
        self.websocket = websocket
        self.keep_alive = False
        self.answered = False
        self.over = False
        self.began = edge.time() if (edge := client.edge).timings > 0 else 0.0
        self.sent = 0
        self._pending = pending
        self._upstream: UpstreamConnection | None = None
        self._request = b""
        self._tried = 0
        self._partial = b""
        self._response: ResponseBody | None = None
        self._onward_kind = Body.NONE
        self._reusable = False
        self._interim = 0
        self._status = 0
        self._held_back = False

    @property
    def received(self) -> int:
        """Bytes of the request's body so far."""
        return self.body.taken if self.body is not None else 0

    @property
    def request_done(self) -> bool:
        """Whether what the client sends next is another request."""
        return self.body is None or self.body.done

    @property
    def pool(self) -> Pool:
        """The target that it waits for, or may."""
        return self._upstream.pool if self._upstream is not None else self.route.pools[0]

    @property
    def between_chunks(self) -> bool:
        """Whether the client is to be sent another chunk next."""
        return self.answered and not self.over and self._onward_kind is Body.CHUNKED

    # --- the request ---

    def forward(self, data: bytes) -> None:
        """Send the request on, with this head."""
        self._request = data
        upstream = self.route.take()
        if upstream is not None:
            self._send(upstream, data)
        else:
            self.client.edge.tasks.start(self._connect(), name="connect")

    async def _connect(self) -> None:
        try:
            upstream = await self.route.connect()
        except (TargetAwayError, WrongPeerError, BusyError) as error:
            self.fail(error)
            return
        if self.over:
            upstream.release(reusable=True)
        else:
            self._send(upstream, self._request)

    def _send(self, upstream: UpstreamConnection, data: bytes) -> None:
        self._upstream = upstream
        upstream.conversation = self
        if self._pending:
            data += self._pending
            self._pending = b""
            self.client.resume()
        if self.body is not None:
            self._request = b""  # a body is sent once, so neither head is needed again
        upstream.transport.write(data)
        self.client.waiting()

    def feed_body(self, data: bytes) -> None:
        """Take what the client sent of its body."""
        body = self.body
        if body is None or self.over:
            return
        try:
            out = body.feed(data)
        except BadRequestError as error:
            self.fail(error)
            return
        self.route.active_at = self.client.edge.deadlines.now
        if self._upstream is None:
            self._pending += out
            if len(self._pending) > MOST_PENDING:
                self.client.pause()
        elif out and not self._upstream.transport.is_closing():
            self._upstream.transport.write(out)
        if body.done:
            self.client.keep(body.surplus)
        self.client.waiting()

    # --- the response ---

    def upstream_data(self, data: bytes) -> None:
        """Take what the target sent."""
        if self.client.transport.is_closing():
            self.client_gone()
            return
        try:
            if self._response is None:
                self._read_head(data)
            else:
                self._relay(self._response, b"", data)
                if self.client.deadline is not NEVER and not self.over:
                    self.client.flowing()
        except (BadResponseError, ChunkError) as error:
            self.route.note_trouble("bad_response", str(error))
            self.fail(BadResponseError(str(error)))

    def _read_head(self, data: bytes) -> None:
        if self._partial:
            data = self._partial + data
            self._partial = b""
        while True:
            end = data.find(END)
            if end < 0:
                if len(data) > RESPONSE_LIMITS.head:
                    raise BadResponseError("the response head is too large")
                self._partial = data
                return
            if end > RESPONSE_LIMITS.head:
                raise BadResponseError("the response head is too large")
            head = self._response_head(data[: end + 4])
            data = data[end + 4 :]
            if head.status >= 200:
                self._begin_response(head, data)
                return
            if head.status == 101:
                self._switch(head, data)
                return
            self._pass_interim(head)
            if not data:
                return

    def _response_head(self, data: bytes) -> ResponseHead:
        """Read a head. A busy target repeats its heads for as long as `Date` stays the same."""
        route = self.route
        before = route.last_head
        if before is not None and before[0] == data:
            return before[1]
        head = parse_response(data, response_fields(route.fence))
        if route.fence is not None and b"set-cookie" in head.special:
            route.note_cookies(head.special[b"set-cookie"])
        route.last_head = (data, head) if len(data) <= MOST_REMEMBERED else None
        return head

    def _pass_interim(self, head: ResponseHead) -> None:
        self._interim += 1
        if self._interim > MOST_INTERIM:
            raise BadResponseError("there are too many interim responses")
        wanted = self.head.minor == 1 and (head.status != 100 or self.head.expects_continue)
        if wanted:
            self.client.transport.write(response_bytes(head, b"", self.route.fence))

    def _begin_response(self, head: ResponseHead, data: bytes) -> None:
        if self.route.several and self._passed_over(head):
            return
        kind = response_body(head, self.head.method)
        self._status = head.status
        if self.began:
            self.client.edge.answer_began(self.began)
        self.keep_alive = (
            self.head.keep_alive
            and (self.body is None or self.body.done)
            and not self.websocket
            and not self.client.edge.draining
        )
        framing, self._onward_kind = onward_framing(
            head, kind, self.head.minor, keep_alive=self.keep_alive
        )
        if self._onward_kind is Body.UNTIL_CLOSE:
            self.keep_alive = False
        self._reusable = (
            head.keep_alive and kind is not Body.UNTIL_CLOSE and DRAINING not in head.special
        )
        out = response_bytes(head, framing, self.route.fence)
        self.client.flowing()
        if kind is Body.NONE:
            self.answered = True
            if data:
                self._reusable = False  # a body where none may be: nothing after it can be trusted
            self.client.transport.write(out)
            self._finish()
        elif kind is Body.SIZED and len(data) == head.length and len(data) <= JOIN_UP_TO:
            self.answered = True
            self.sent = len(data)  # all of it came at once, as most do
            self.client.transport.write(out + data)
            self._finish()
        else:
            self._response = body = ResponseBody(kind, self._onward_kind, head.length or 0)
            self._relay(body, out, data)

    def _relay(self, body: ResponseBody, out: bytes, data: bytes) -> None:
        """Pass on body data, with the head before it when it comes in one."""
        data = body.feed(data) if data else b""
        self.answered = True
        self.sent += len(data)
        transport = self.client.transport
        if len(data) <= JOIN_UP_TO:
            if out or data:
                transport.write(out + data)
        else:
            if out:
                transport.write(out)
            transport.write(data)
        if body.done:
            self._reusable = self._reusable and body.clean
            self._finish()

    def _switch(self, head: ResponseHead, data: bytes) -> None:
        upstream = self._upstream
        if not self.websocket or upstream is None:
            raise BadResponseError("101 that nobody asked for")
        check_accepted(head, self.head.special[b"sec-websocket-key"][0])
        upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
        out = response_bytes(head, upgrade, self.route.fence)
        self.client.edge.counters.upgrades[101] += 1
        self.route.requests += 1
        self.over = True
        self._upstream = None
        upstream.conversation = None
        self.client.transport.write(out + data)
        self.client.tunnel(self, upstream, data)

    def upstream_lost(self, error: Exception | None) -> None:
        """The target's connection is gone."""
        upstream, self._upstream = self._upstream, None
        if self.over:
            return
        if self.client.transport.is_closing():
            self.client_gone()
        elif self._response is not None and self._response.until_close and error is None:
            if last := self._response.end():
                self.client.transport.write(last)
            self._finish()
        elif self.answered:
            self._cut("the target ended in the middle of its response")
        elif upstream is not None:
            reason = str(error or "no response")
            if not upstream.reused:
                self.route.failed(upstream.pool, f"{upstream.pool.target}: {reason}")
            if self._may_retry(upstream):
                self._retry(upstream)
                return
            self.route.note_trouble("target_ended", reason)
            self.fail(TargetAwayError("the target ended without a response"))

    def _passed_over(self, head: ResponseHead) -> bool:
        """Note whether one of several targets is ending; True if another is asked in its place."""
        upstream = self._upstream
        if upstream is None or DRAINING not in head.special:
            if upstream is not None and upstream.pool.failures:
                upstream.pool.readmit()
            return False
        self.route.failed(upstream.pool, f"{upstream.pool.target}: it is ending")
        if head.status != 503 or not self._may_retry(upstream):
            return False
        self._upstream = None
        upstream.release(reusable=False)
        self._retry(upstream)
        return True

    def _may_retry(self, upstream: UpstreamConnection) -> bool:
        """Whether the request can be seen twice unharmed, and not every target was tried in vain.

        A connection that waited may have been closed just then: that says nothing of the target.
        """
        return (
            self._tried + (not upstream.reused) < len(self.route.pools)
            and self.body is None
            and not self._partial
            and not self._interim
            and self.head.method in _IDEMPOTENT
        )

    def _retry(self, upstream: UpstreamConnection) -> None:
        self._tried += not upstream.reused
        self.client.edge.counters.retries += 1
        self.client.edge.tasks.start(self._connect(), name="connect")

    # --- flow control ---

    def upstream_writable(self, *, writable: bool) -> None:
        """The target takes the request's body, or does not just now."""
        if writable:
            self.client.resume()
        else:
            self.client.pause()
        self.client.waiting()

    def client_writable(self, *, writable: bool) -> None:
        """The client takes the response, or does not just now."""
        if self._upstream is None or self._upstream.transport.is_closing():
            return
        self._held_back = not writable
        if writable:
            self._upstream.transport.resume_reading()
        else:
            self._upstream.transport.pause_reading()

    # --- ends ---

    def _finish(self) -> None:
        if self._status < 300:
            self.route.active_at = self.client.edge.deadlines.now
        self._let_go(reusable=self._reusable and self.request_done and not self.websocket)
        self.client.finished(keep_alive=self.keep_alive, request_done=self.request_done)

    def answer(self, answer: Answer) -> None:
        """End with an answer of the proxy's own."""
        if self.over:
            return
        keep_alive = (
            self.head.keep_alive
            and self.request_done
            and not self.websocket  # what came after it was meant for a socket
            and not self.client.edge.draining
        )
        self._status = answer.status
        self.reason = answer.reason
        self._let_go(reusable=False)
        self.client.answer(answer, keep_alive=keep_alive, head_only=self.head.method == b"HEAD")
        self.client.finished(keep_alive=keep_alive, request_done=self.request_done)

    def fail(self, error: ProxyError) -> None:
        """End because something is wrong: an answer if none has begun, else a cut."""
        if self.over:
            return
        if self.answered:
            self._cut(str(error))
            return
        if isinstance(error, BadRequestError):
            self._status = error.status
            self.reason = trouble_of(error).reason
            self._let_go(reusable=False)
            self.client.refuse(error)
            return
        self.tell(trouble_of(error, self.route.spawn))

    def tell(self, trouble: Trouble) -> None:
        """End by saying what is wrong, as a page or as JSON."""
        self.answer(trouble_answer(trouble, page=is_navigation(self.head)))

    def timed_out(self) -> None:
        """The phase the exchange is in took too long."""
        if self.answered:
            reason = "the client does not read" if self._held_back else "the target stopped"
            self._cut(reason)
        elif not (self.request_done or self.client.paused):
            self.fail(BadRequestError("the body took too long", 408))
        else:
            self.route.note_trouble("no_response", "the target took too long")
            self.tell(GATEWAY_TIMEOUT)

    def _cut(self, reason: str) -> None:
        """End both connections, so that nobody takes a part for the whole."""
        if not self.over:
            log.debug("response_cut", prefix=self.route.prefix, reason=reason)
            self.client.edge.counters.cut += 1
            self.reason = "cut"
            self._let_go(reusable=False)
            self.client.cut(framed=self._onward_kind is not Body.UNTIL_CLOSE)

    def client_gone(self) -> None:
        """Nobody waits for the response any more."""
        if not self.over:
            self._let_go(reusable=False)

    def _let_go(self, *, reusable: bool) -> None:
        self.over = True
        edge, route = self.client.edge, self.route
        counters = edge.counters
        if self.head.method == b"GET" and not self.websocket:
            counters.reads[self._status] += 1
        else:
            counters.ended(self.head.method, self._status, websocket=self.websocket)
        route.requests += 1
        if sent := self.sent:
            route.sent += sent
            counters.sent += sent
        if self.body is not None:
            route.received += self.body.taken
            counters.received += self.body.taken
        if edge.access_log is not None:
            edge.access_log.exchange_ended(self, self._status)
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            if self._held_back and reusable and not upstream.transport.is_closing():
                upstream.transport.resume_reading()
            upstream.release(reusable=reusable)

"""One request and its response, on their way through.

A request is first decided on (by the client's connection), then sent on with `forward`, over a
connection that waited or a new one. The response is relayed as it comes. Whichever side is slower
holds the other one back. There is one end: `_finish` when all went well, `fail` while the client
has been sent nothing, `_cut` after that.
"""

import asyncio

import structlog

from carrel_proxy.core.answers import Answer, Trouble, is_navigation, trouble_answer
from carrel_proxy.core.framing import Body
from carrel_proxy.core.head import ResponseHead
from carrel_proxy.core.headers import response_bytes
from carrel_proxy.core.troubles import GATEWAY_TIMEOUT, trouble_of
from carrel_proxy.core.websocket import check_accepted
from carrel_proxy.engine.response import DRAINING, PassesResponse
from carrel_proxy.engine.upstream import Pool, UpstreamConnection
from carrel_proxy.errors import (
    BadRequestError,
    BadResponseError,
    BusyError,
    ProxyError,
    TargetAwayError,
    WrongPeerError,
)

log = structlog.get_logger(__name__)

MOST_PENDING = 64 * 1024
"""Bytes of a body that wait in memory for a connection."""

CONTINUE_SECONDS = 0.25
"""How long a client that waits for `100 Continue` waits for the target's; shorter than clients do
before they send their body anyway."""

_READS = frozenset((b"GET", b"HEAD"))
_IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"))


class Exchange(PassesResponse):
    """A request in progress."""

    __slots__ = ()

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
        repeatable = self.body is None and self.head.method in _READS and not self.websocket
        upstream = self.route.take(repeatable=repeatable)
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
        if (body := self.body) is not None:
            self._request = b""  # a body is sent once, so neither head is needed again
            if self.head.expects_continue and not body.taken:
                asyncio.get_running_loop().call_later(CONTINUE_SECONDS, self._encourage)
        upstream.transport.write(data)
        self.client.waiting()

    def _encourage(self) -> None:
        """Have the client send its body, though the target has not asked for it: there are targets
        that wait for it without a word."""
        untold = not (self.over or self.answered or self._interim or self.received)
        if untold and not self.client.transport.is_closing():
            self.client.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

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

    # --- other ends than a response ---

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

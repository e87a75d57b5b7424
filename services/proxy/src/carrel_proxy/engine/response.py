"""A response on its way from a target to a client: read strictly, and passed on as it comes."""

from typing import TYPE_CHECKING

from carrel_proxy.core.body import RequestBody, ResponseBody
from carrel_proxy.core.chunks import ChunkError
from carrel_proxy.core.framing import Body
from carrel_proxy.core.head import (
    END,
    RESPONSE_LIMITS,
    RequestHead,
    ResponseHead,
    check_partial_response,
)
from carrel_proxy.core.headers import response_bytes
from carrel_proxy.core.opening import opening
from carrel_proxy.engine.deadlines import NEVER
from carrel_proxy.engine.routes import LiveRoute
from carrel_proxy.engine.upstream import UpstreamConnection
from carrel_proxy.errors import BadResponseError, ProxyError

if TYPE_CHECKING:
    from carrel_proxy.engine.client import ClientConnection

MOST_INTERIM = 10
"""Interim responses to one request; more are a flood."""
JOIN_UP_TO = 16 * 1024
"""Up to this size, head and body are worth copying together into one write."""

DRAINING = b"x-carrel-draining"
"""Set by a target that is ending, in all its responses."""


class PassesResponse:
    """A request that was sent on, as its response sees it.

    Attributes:
        client: Whose it is.
        head: The request's.
        body: The request's body; None without one.
        route: Where it goes.
        websocket: It asks to open a WebSocket.
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

    # --- what else becomes of it: `Exchange` says ---

    def fail(self, error: ProxyError) -> None:
        """End because something is wrong."""
        raise NotImplementedError

    def client_gone(self) -> None:
        """Nobody waits for the response any more."""
        raise NotImplementedError

    def _finish(self) -> None:
        """End because all went well."""
        raise NotImplementedError

    def _passed_over(self, head: ResponseHead) -> bool:
        """Whether another target is asked in place of the one that answered this."""
        raise NotImplementedError

    def _switch(self, head: ResponseHead, data: bytes) -> None:
        """Open the WebSocket that was asked for."""
        raise NotImplementedError

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
        known = 0
        if self._partial:
            known = len(self._partial)
            data = self._partial + data
            self._partial = b""
        while True:
            end = data.find(END)
            if end < 0:
                check_partial_response(data, known)
                self._partial = data
                return
            if end > RESPONSE_LIMITS.head:
                raise BadResponseError("the response head is too large")
            head = self._response_head(data[: end + 4])
            data, known = data[end + 4 :], 0
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
        route = self.route
        head = route.heads.read(data)
        if route.fence is not None and b"set-cookie" in head.special:
            route.note_cookies(head.special[b"set-cookie"])
        return head

    def _pass_interim(self, head: ResponseHead) -> None:
        self._interim += 1
        if self._interim > MOST_INTERIM:
            raise BadResponseError("there are too many interim responses")
        wanted = self.head.minor == 1 and (head.status != 100 or self.head.expects_continue)
        if wanted and not self.websocket:  # whose clients take nothing before the answer
            self.client.transport.write(response_bytes(head, b"", self.route.fence))

    def _begin_response(self, head: ResponseHead, data: bytes) -> None:
        if self.route.several and self._passed_over(head):
            return
        self._status = head.status
        if self.began:
            self.client.edge.answer_began(self.began)
        asked = self.head
        keep_alive = (
            asked.keep_alive
            and (self.body is None or self.body.done)
            and not self.websocket
            and not self.client.edge.draining
        )
        out, kind, self._onward_kind, self.keep_alive = opening(
            head, asked.method, asked.minor, self.route.fence, keep_alive=keep_alive
        )
        self._reusable = (
            head.keep_alive and kind is not Body.UNTIL_CLOSE and DRAINING not in head.special
        )
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

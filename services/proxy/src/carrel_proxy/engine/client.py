"""A client's connection: requests in, answers out, one after the other.

Bytes that come while a request is under way wait in `_buffer`; when there are many, reading stops.
So a client that pipelines gets its answers in order and holds no more than a bounded buffer.
"""

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from carrel_proxy.access.verdicts import Grant
from carrel_proxy.core.answers import (
    Answer,
    answer_bytes,
    trouble_answer,
)
from carrel_proxy.core.body import RequestBody
from carrel_proxy.core.frames import FrameCounter
from carrel_proxy.core.head import END, RequestHead, check_partial, parse_request
from carrel_proxy.core.troubles import BUSY, trouble_of
from carrel_proxy.engine.deadlines import NEVER
from carrel_proxy.engine.exchange import Exchange
from carrel_proxy.engine.keepalive import abort_unsent
from carrel_proxy.engine.tunnel import Tunnel
from carrel_proxy.engine.upstream import UpstreamConnection
from carrel_proxy.errors import BadRequestError
from carrel_shared.service_auth import clean_request_id

if TYPE_CHECKING:
    from carrel_proxy.engine.edge import Edge

MOST_BUFFERED = 64 * 1024
"""Bytes of further requests that wait while one is under way."""
LINGER_SECONDS = 2.0
"""How long a client may still send after an answer that ends the connection: were it closed at
once, the kernel would reset it, and the answer might be lost on its way."""
LEAVE_SECONDS = 1.5
"""How long a client may still begin a request on a connection that takes no more after that; up to
a tick less."""
_CUT_SHORT = "the message ends in the middle"


class ClientConnection(asyncio.Protocol):
    """One accepted connection.

    Attributes:
        deadline: When the phase it is in has taken too long.
        exchange: The request under way.
        grant: What lets that request pass, where the proxy guards.
        counted_as: What its address is counted as; empty where it is not.
        peer: The address it comes from.
        trusted: That is a proxy whose word counts.
        https: It is TLS.
        request_id: Names the request under way in the logs of all services.
        forwarded: The last `Host`, and what the next hop is told of the client with it.
    """

    __slots__ = (
        "__weakref__",
        "_advancing",
        "_buffer",
        "_checked",
        "_ended",
        "_held",
        "_last",
        "_lingering",
        "_paused",
        "_skipped_line",
        "_stalled",
        "counted_as",
        "deadline",
        "edge",
        "exchange",
        "forwarded",
        "grant",
        "https",
        "peer",
        "request_id",
        "transport",
        "trusted",
    )

    transport: asyncio.Transport

    def __init__(self, edge: "Edge") -> None:
        self.edge = edge
        self.deadline = NEVER
        self.exchange: Exchange | None = None
        self.grant: Grant | None = None
        self._buffer = b""
        self._checked = 0
        self._last: RequestHead | None = None
        self._held: tuple[RequestHead, RequestBody, bytes] | None = None
        self.forwarded: tuple[bytes, bytes] = (b"", b"")
        self._advancing = False
        self._ended = False
        self._lingering = False
        self._paused = False
        self.request_id = b""
        self._skipped_line = False
        self._stalled = False

    # --- asyncio's side ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.peer, self.trusted, self.counted_as = self.edge.peer_of(
            self.transport.get_extra_info("peername")
        )
        self.https = self.transport.get_extra_info("sslcontext") is not None
        self.deadline = self.edge.deadlines.now + self.edge.limits.head_seconds
        reason = self.edge.connected(self)
        if reason is not None:
            self._turn_away(reason)

    def _turn_away(self, reason: str) -> None:
        self.edge.note_turned_away(self, reason)
        answer = trouble_answer(replace(BUSY, message=f"Just now {reason}."), page=False)
        self.answer(answer, keep_alive=False, head_only=False)
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is not None:
            if exchange.request_done:
                self.keep(data)
            else:
                exchange.feed_body(data)
        elif self._lingering:
            pass
        elif self._held is not None:
            self._feed_held(data)
        else:
            self._buffer = self._buffer + data if self._buffer else data
            self._advance()
            if self._stalled and len(self._buffer) > MOST_BUFFERED:
                self.pause()  # it reads no answers, so no more requests are taken

    def eof_received(self) -> bool:
        """The client sends no more. It may have left, or wait for what it asked for."""
        self._ended = True
        exchange = self.exchange
        if exchange is not None and not (exchange.request_done or exchange.answered):
            exchange.fail(BadRequestError(_CUT_SHORT))
        elif exchange is not None or (self._stalled and self._buffer):
            if self.transport.can_write_eof():  # not so over TLS
                self.edge.half_closed.add(self)
                return True
        elif not self._lingering and (self._buffer or self._held):
            self._write_refusal(BadRequestError(_CUT_SHORT))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.edge.disconnected(self)
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_gone()

    def pause_writing(self) -> None:
        self._stalled = True
        self.deadline = self.edge.deadlines.now + self.edge.limits.stall_seconds
        if self.exchange is not None:
            self.exchange.client_writable(writable=False)

    def resume_writing(self) -> None:
        self._stalled = False
        if self.exchange is not None:
            self.waiting()
            if self.exchange.answered:
                self.flowing()
            self.exchange.client_writable(writable=True)
        else:
            self._await_next()

    # --- requests ---

    def _advance(self) -> None:
        """Begin as many requests as the buffer holds and can be begun now."""
        if self._advancing:
            return  # an answer of our own ended inside the loop below, which goes on by itself
        self._advancing = True
        try:
            while self._buffer and self._can_begin():
                if not self._begin_next():
                    return
        except BadRequestError as error:
            self.refuse(error)
        finally:
            self._advancing = False

    def _can_begin(self) -> bool:
        return (
            self.exchange is None
            and self._held is None
            and not self._stalled
            and not self._lingering
            and not self.transport.is_closing()
        )

    def _begin_next(self) -> bool:
        """Take one request from the buffer; False if it is not all there."""
        data = self._buffer
        if data[0] == 0x0D and data[:2] == b"\r\n" and not self._skipped_line:
            self._skipped_line = True  # RFC 9112 2.2: at most one
            self._buffer = data[2:]
            return True
        end = data.find(END)
        if end < 0:
            check_partial(data, self.edge.limits.head, self._checked)
            if not self._checked:
                self.deadline = self.edge.deadlines.now + self.edge.limits.head_seconds
            self._checked = len(data)
            return False
        self._checked = 0
        self._skipped_line = False
        head = parse_request(
            data[: end + 4], self.edge.limits.head, self.edge.default_host, self._last
        )
        self._last = head
        self._buffer = data[end + 4 :]
        if not head.has_body:
            self._dispatch(head, None, b"")
            return True
        body = RequestBody(head)
        data, self._buffer = self._buffer, b""
        pending = body.feed(data) if data else b""
        self._take_body(head, body, pending)
        return True

    def _take_body(self, head: RequestHead, body: RequestBody, pending: bytes) -> None:
        if not body.ready:
            self._held = (head, body, pending)
            self.deadline = self.edge.deadlines.now + self.edge.limits.body_seconds
            return
        self._buffer, body.surplus = body.surplus, b""
        self._dispatch(head, body, pending)

    def _feed_held(self, data: bytes) -> None:
        """Go on with a request whose framing is not proven yet."""
        if self._held is None:
            return
        head, body, pending = self._held
        self._held = None
        try:
            self._take_body(head, body, pending + body.feed(data))
        except BadRequestError as error:
            self.refuse(error)
        else:
            self._advance()

    def _dispatch(self, head: RequestHead, body: RequestBody | None, pending: bytes) -> None:
        sent = head.special.get(b"x-request-id") if self.trusted else None
        if sent is not None and len(sent) == 1:
            self.request_id = clean_request_id(sent[0].decode("latin-1")).encode("ascii")
        else:
            self.request_id = self.edge.next_request_id()
        self.edge.dispatcher.dispatch(self, head, body, pending)

    def answer_at_once(self, head: RequestHead, body: RequestBody | None, answer: Answer) -> None:
        """Answer a request that belongs to no route."""
        done = body is None or body.done
        keep_alive = head.keep_alive and done and not self.edge.draining
        if self.edge.access_log is not None:
            self.edge.access_log.answered(self, head, answer)
        self.answer(answer, keep_alive=keep_alive, head_only=head.method == b"HEAD")
        self.finished(keep_alive=keep_alive, request_done=done)

    # --- for the exchange ---

    def waiting(self) -> None:
        """Something came of the request: the next part has its full time."""
        exchange = self.exchange
        if exchange is None or exchange.answered or self._stalled:
            return
        limits = self.edge.limits
        for_target = exchange.request_done or self._paused
        seconds = limits.response_seconds if for_target else limits.body_seconds
        self.deadline = self.edge.deadlines.now + seconds

    def flowing(self) -> None:
        """A response goes on: it may take as long as it likes."""
        if not self._stalled:
            self.deadline = self.edge.deadlines.now + self.edge.limits.pause_seconds

    def keep(self, data: bytes) -> None:
        """Keep what belongs to later requests."""
        if data:
            self._buffer += data
            if len(self._buffer) > MOST_BUFFERED:
                self.pause()

    @property
    def paused(self) -> bool:
        """Whether the client must wait until more of what it sends is taken."""
        return self._paused

    def pause(self) -> None:
        """Read no more for now."""
        if not self._paused and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read again, unless enough waits already; what waits may be the first part of a head."""
        if not self._paused or self.transport.is_closing():
            return
        if len(self._buffer) <= max(MOST_BUFFERED, self.edge.limits.head.head):
            self._paused = False
            self.transport.resume_reading()

    def answer(self, answer: Answer, *, keep_alive: bool, head_only: bool) -> None:
        """Write an answer of the proxy's own."""
        self.edge.counters.own[answer.reason] += 1
        if not self.transport.is_closing():
            told = answer.naming(self.request_id)
            self.transport.write(answer_bytes(told, keep_alive=keep_alive, head_only=head_only))

    def finished(self, *, keep_alive: bool, request_done: bool) -> None:
        """A response was written to its end."""
        self.request_id = b""
        self.exchange = None
        self.grant = None
        if self.transport.is_closing():
            return
        if keep_alive:
            self._await_next()
        elif request_done and not self._buffer and not self._paused:
            self.transport.close()
        else:
            self._linger()

    def _await_next(self) -> None:
        self.deadline = self.edge.deadlines.now + self.edge.limits.idle_seconds
        self.resume()
        if self._buffer:
            self._advance()
            self.resume()
        if self._ended:
            self._end_after_all()
        elif self.edge.draining:
            self.drain()  # its answer began before and promised more

    def _end_after_all(self) -> None:
        """The client sends no more, and what it had sent before that was looked at."""
        exchange = self.exchange
        if exchange is not None:
            if not (exchange.request_done or exchange.answered):
                exchange.fail(BadRequestError(_CUT_SHORT))
        elif self._stalled or self._lingering:
            pass
        elif self._buffer or self._held:
            self.refuse(BadRequestError(_CUT_SHORT))
        else:
            self.transport.close()

    def refuse(self, error: BadRequestError) -> None:
        """Say why a message is refused, and end the connection: what follows cannot be trusted."""
        noted = self.exchange is not None  # as a request that ended
        self.exchange = None
        self.grant = None
        self._held = None
        self._buffer = b""
        if not self.transport.is_closing():
            self._write_refusal(error, noted=noted)
            self._linger()

    def _write_refusal(self, error: BadRequestError, *, noted: bool = False) -> None:
        self.request_id = self.request_id or self.edge.next_request_id()
        if not noted and self.edge.access_log is not None:
            self.edge.access_log.refused(self, error)
        fields = ((b"Allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),)
        answer = trouble_answer(
            trouble_of(error), page=False, fields=fields if error.status == 405 else ()
        )
        self.answer(answer, keep_alive=False, head_only=False)

    def _linger(self) -> None:
        """End the connection so that what was written arrives."""
        if self._lingering:
            return
        self._lingering = True
        self._buffer = b""
        self.deadline = self.edge.deadlines.now + LINGER_SECONDS
        if self._ended or not self.transport.can_write_eof():
            self.transport.close()
            return
        self.transport.write_eof()
        self.resume()

    def cut(self, *, framed: bool) -> None:
        """End in the middle of a response. Where its framing shows that, what was sent may arrive;
        where only the end of the connection would end it, it must not look like a good one."""
        self.exchange = None
        if framed:
            self.transport.close()
        else:
            abort_unsent(self.transport)  # a reset; by itself an abort is an end like any other

    def tunnel(self, exchange: Exchange, upstream: UpstreamConnection, sent: bytes) -> None:
        """Give the connection away to a tunnel.

        Args:
            sent: What the server sent right after the handshake.
        """
        grant, self.exchange, self.grant = self.grant, None, None
        self.edge.disconnected(self)
        waiting, self._buffer = self._buffer, b""
        if waiting:
            upstream.transport.write(waiting)
        upstream.leave()
        frames = FrameCounter()
        frames.count(sent)
        tunnel = Tunnel(
            self.transport,
            upstream.transport,
            route=exchange.route,
            counted_as=self.counted_as,
            grant=grant,
            deadlines=self.edge.deadlines,
            frames=frames,
            vanished_seconds=self.edge.limits.vanished_seconds,
            on_end=self.edge.tunnel_ended,
        )
        tunnel.carried_before(len(waiting), len(sent))
        self.edge.tunnel_opened(tunnel)
        if self.edge.access_log is not None:
            self.edge.access_log.socket_opened(tunnel, exchange)
        if self._paused:
            self.transport.resume_reading()
        if self._ended:
            tunnel.ended(upstream.transport)

    # --- limits ---

    def timed_out(self) -> None:
        """The phase that the connection is in took too long."""
        if self.exchange is not None:
            self.exchange.timed_out()
        elif self._stalled or self._lingering:
            self.transport.abort()
        elif self._buffer or self._held:
            self.refuse(BadRequestError("the request took too long to arrive", 408))
        else:
            self.transport.close()

    def drain(self) -> None:
        """Take one more request at most, if it comes soon: it may be on its way already.

        Who has asked nothing yet has twice the time: if they came just now, they surely will.
        """
        if self.exchange is None and not self._lingering:
            seconds = LEAVE_SECONDS if self._last is not None else 2 * LEAVE_SECONDS
            self.deadline = min(self.deadline, self.edge.deadlines.now + seconds)

    def revoked(self) -> None:
        """What let the request pass has ended."""
        abort_unsent(self.transport)

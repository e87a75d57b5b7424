"""The asyncio end of a SEQPACKET pair: requests with replies, and events nobody asked for."""

import asyncio
import itertools
import socket
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from carrel_agent.keeper.messages import Message, MessageError, close_all, encode, receive, send

log = structlog.get_logger(__name__)


class ChannelClosedError(Exception):
    """The process at the other end is gone. A request that waited may or may not have been done."""


class RefusedError(Exception):
    """The other end answered with an error, so the request was not done."""


@dataclass(slots=True)
class Reply:
    """An answer; who gets it owns its descriptors."""

    message: Message
    descriptors: list[int] = field(default_factory=list)


class Channel:
    """Owns one end of a pair.

    Args:
        end: Not blocking.
        on_event: Called for each message that answers no request.
        on_close: Called once when the other end is gone (not by `close`).
    """

    def __init__(
        self,
        end: socket.socket,
        *,
        on_event: Callable[[Message], None] = lambda _message: None,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        self._socket = end
        self._on_event = on_event
        self._on_close = on_close
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._outgoing: deque[tuple[bytes, Sequence[int], asyncio.Future[None]]] = deque()
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._loop.add_reader(end.fileno(), self._read)

    @property
    def closed(self) -> bool:
        """Whether nothing can be asked any more."""
        return self._closed

    async def request(
        self, message: Message, descriptors: Sequence[int] = (), *, timeout_seconds: float = 30
    ) -> Reply:
        """Send a request and return the reply. The caller keeps its own descriptors.

        Raises:
            RefusedError: If the other end refuses.
            ChannelClosedError: If it goes away, or does not answer in time.
        """
        if self._closed:
            raise ChannelClosedError("the process at the other end is gone")
        number = next(self._ids)
        answer: asyncio.Future[Reply] = self._loop.create_future()
        self._waiting[number] = answer
        try:
            async with asyncio.timeout(timeout_seconds):
                sent: asyncio.Future[None] = self._loop.create_future()
                self._outgoing.append((encode({**message, "id": number}), descriptors, sent))
                self._write()
                await sent
                reply = await answer
        except TimeoutError:
            raise ChannelClosedError(f"no answer within {timeout_seconds:g} seconds") from None
        finally:
            self._waiting.pop(number, None)
        if "error" in reply.message:
            close_all(reply.descriptors)
            raise RefusedError(str(reply.message["error"]))
        return reply

    def close(self) -> None:
        """Close this end. Requests that wait fail."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        gone = ChannelClosedError("the process at the other end is gone")
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(gone)
        for _data, _descriptors, sent in self._outgoing:
            if not sent.done():
                sent.set_exception(gone)
        self._outgoing.clear()

    def _lost(self) -> None:
        if not self._closed:
            self.close()
            self._on_close()

    def _write(self) -> None:
        while self._outgoing:
            data, descriptors, sent = self._outgoing[0]
            if not sent.cancelled():
                try:
                    send(self._socket, data, descriptors)
                except BlockingIOError:
                    self._loop.add_writer(self._socket.fileno(), self._write)
                    return
                except OSError:
                    self._lost()
                    return
                sent.set_result(None)
            self._outgoing.popleft()
        self._loop.remove_writer(self._socket.fileno())

    def _read(self) -> None:
        while not self._closed:
            try:
                received = receive(self._socket)
            except BlockingIOError:
                return
            except MessageError as error:
                log.error("message_unreadable", reason=str(error))
                continue
            except OSError:
                received = None
            if received is None:
                self._lost()
                return
            self._take(*received)

    def _take(self, message: Message, descriptors: list[int]) -> None:
        answer = self._waiting.get(message.get("id", -1))
        if answer is not None and not answer.done():
            answer.set_result(Reply(message, descriptors))
            return
        close_all(descriptors)
        if "event" in message:
            self._on_event(message)

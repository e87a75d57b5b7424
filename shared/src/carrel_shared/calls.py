"""Calls to a service at one address, at a tenth of what a general HTTP client takes for each.

A call is one request with its whole body and one answer with its own, over connections that are
kept; nothing is followed, decoded or remembered. What streams, or goes by TLS, is httpx's. Whoever
calls need not know by which of the two: `http_errors` are those of both.
"""

import asyncio
import sys
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, Self, cast

import httptools

from carrel_shared.addresses import Address, UnixAddress, http_client

if TYPE_CHECKING:
    import httpx

MOST_IDLE = 16
"""How many connections that nobody uses are kept."""


class CallError(Exception):
    """A call was not answered."""


class ConnectError(CallError):
    """Nobody listens, or not in time."""


class LateAnswerError(CallError):
    """The answer did not come in time."""


class LostAnswerError(CallError):
    """The connection was lost, or what came is no answer."""


class Answer(Protocol):
    """What came back."""

    @property
    def status_code(self) -> int: ...

    @property
    def content(self) -> bytes: ...

    @property
    def text(self) -> str: ...


class Client(Protocol):
    """Whoever makes calls to a service: `PlainClient`, or one of httpx."""

    async def request(
        self,
        method: str,
        url: str,
        *,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Call the service.

        Raises:
            CallError: It did not answer; see `http_errors`.
        """
        ...

    def stream(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: "httpx.Timeout",
    ) -> "AbstractAsyncContextManager[httpx.Response]":
        """Call the service for an answer that takes its time."""
        ...

    async def aclose(self) -> None:
        """Close every connection."""
        ...


class Reply:
    """An answer of a `PlainClient`."""

    __slots__ = ("content", "status_code")

    def __init__(self, status_code: int, content: bytes) -> None:
        self.status_code = status_code
        self.content = content

    @property
    def text(self) -> str:
        return self.content.decode("utf-8", "replace")


class PlainClient:
    """Calls one service without TLS.

    Args:
        address: Where it listens.
        timeout_seconds: How long a call may take, from the first to the last of it.
    """

    def __init__(self, address: Address, *, timeout_seconds: float = 10) -> None:
        self._address = address
        self._seconds = timeout_seconds
        self._host = "carrel.internal" if isinstance(address, UnixAddress) else str(address)
        self._idle: list[_Connection] = []
        self._streams: httpx.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def request(
        self,
        method: str,
        url: str,
        *,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Call the service.

        Raises:
            CallError: It did not answer, or not in time.
        """
        sent = self._written(method, url, content, headers or {})
        connection = None
        try:
            async with asyncio.timeout(self._seconds):
                connection = self._kept() or await self._connected()
                reply = await connection.exchange(sent)
        except BaseException as error:
            if connection is not None:
                connection.close()
            if isinstance(error, OSError | httptools.HttpParserError):  # TimeoutError is one
                _fail(error, connected=connection is not None)
            raise
        if connection.is_free and len(self._idle) < MOST_IDLE:
            self._idle.append(connection)
        else:
            connection.close()
        return reply

    def stream(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: "httpx.Timeout",
    ) -> "AbstractAsyncContextManager[httpx.Response]":
        """Call the service for an answer that takes its time, as httpx does."""
        if self._streams is None:
            self._streams = http_client(self._address, timeout_seconds=self._seconds)
        return self._streams.stream(method, url, headers=headers, timeout=timeout)

    async def aclose(self) -> None:
        """Close every connection that is not in use."""
        while self._idle:
            self._idle.pop().close()
        if self._streams is not None:
            await self._streams.aclose()

    def _written(
        self, method: str, url: str, content: bytes | None, headers: Mapping[str, str]
    ) -> bytes:
        lines = [f"{method} {url} HTTP/1.1", f"Host: {self._host}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if content is not None or method in ("POST", "PUT"):
            lines.append(f"Content-Length: {len(content or b'')}")
        if any("\r" in line or "\n" in line for line in lines):
            raise ValueError("a call has a line break where none may be")
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + (content or b"")

    def _kept(self) -> "_Connection | None":
        while self._idle:
            connection = self._idle.pop()
            if connection.is_free:
                return connection
        return None

    async def _connected(self) -> "_Connection":
        loop = asyncio.get_running_loop()
        if isinstance(self._address, UnixAddress):
            _, made = await loop.create_unix_connection(_Connection, self._address.path)
        else:
            address = self._address
            _, made = await loop.create_connection(_Connection, address.host, address.port)
        return made


class _Connection(asyncio.Protocol):
    """One connection, with at most one call on it."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Reply] | None = None
        self._parser: Any = None
        self._body: list[bytes] = []
        self._keeps = True

    @property
    def is_free(self) -> bool:
        """Whether another call can be made on it."""
        transport = self._transport
        return self._keeps and transport is not None and not transport.is_closing()

    async def exchange(self, request: bytes) -> Reply:
        """Send a request and return the answer.

        Raises:
            OSError: The connection was lost.
            httptools.HttpParserError: What came is no answer.
        """
        if self._transport is None:
            raise ConnectionResetError("the connection is closed")
        self._parser, self._body = httptools.HttpResponseParser(self), []
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._answer
        finally:
            self._answer = None

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    # -- called by the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's has another base

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():
            self._keeps = False  # nobody asked
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._end(exc or ConnectionResetError("the connection was closed before an answer came"))

    def _end(self, error: Exception) -> None:
        self._keeps = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)

    # -- called by the parser

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if self._answer is None or self._answer.done():
            self._keeps = False  # a second answer
        elif status >= 200:
            self._keeps = self._keeps and self._parser.should_keep_alive()
            self._answer.set_result(Reply(status, b"".join(self._body)))


def http_errors() -> tuple[type[Exception], ...]:
    """Return what calls raise. To be named in `except`: it never loads httpx."""
    httpx = sys.modules.get("httpx")  # which raises nothing where it is not loaded
    return (CallError,) if httpx is None else (CallError, httpx.HTTPError)


def _fail(error: Exception, *, connected: bool) -> NoReturn:
    if not connected:
        raise ConnectError(str(error) or "nobody took the connection in time") from error
    if isinstance(error, TimeoutError):
        raise LateAnswerError("no answer in time") from error
    raise LostAnswerError(str(error)) from error

"""Raw HTTP for tests: no library that would tidy up what a test sends or sees."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

WAIT_SECONDS = 60.0


@dataclass
class Message:
    """A request or a response as it was on the wire."""

    start: str
    fields: list[tuple[str, str]]
    body: bytes = b""
    raw_head: bytes = b""

    @property
    def status(self) -> int:
        return int(self.start.split(" ")[1])

    @property
    def method(self) -> str:
        return self.start.split(" ")[0]

    @property
    def target(self) -> str:
        return self.start.split(" ")[1]

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def one(self, name: str) -> str | None:
        values = self.all(name)
        assert len(values) < 2, (name, values)
        return values[0] if values else None


async def read_head(reader: asyncio.StreamReader) -> Message:
    raw = await reader.readuntil(b"\r\n\r\n")
    lines = raw.decode("latin-1")[:-4].split("\r\n")
    pairs = [line.partition(":") for line in lines[1:]]
    return Message(lines[0], [(name, value.strip()) for name, _, value in pairs], raw_head=raw)


async def read_chunk(reader: asyncio.StreamReader) -> bytes:
    size = int((await reader.readuntil(b"\r\n"))[:-2], 16)
    data = await reader.readexactly(size + 2)
    assert data[-2:] == b"\r\n"
    return data[:-2]


async def read_request(reader: asyncio.StreamReader) -> Message:
    message = await read_head(reader)
    if message.one("transfer-encoding"):
        while chunk := await read_chunk(reader):
            message.body += chunk
    elif length := message.one("content-length"):
        message.body = await reader.readexactly(int(length))
    return message


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Respond = Callable[[Message], bytes]


def ok(body: bytes = b"ok", *fields: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", *fields, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def _just_ok(_request: Message) -> bytes:
    return ok()


@dataclass
class Upstream:
    """A target that records what reaches it and answers as it is told."""

    target: str
    requests: list[Message] = field(default_factory=list)
    connections: int = 0
    open: int = 0
    respond: Respond = _just_ok
    script: Script | None = None
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            if self.script is not None:
                await self.script(reader, writer)
            else:
                while True:
                    request = await read_request(reader)
                    self.requests.append(request)
                    writer.write(self.respond(request))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            self.closed.set()
            writer.close()


@asynccontextmanager
async def open_upstream(
    path: Path | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Upstream]:
    upstream = Upstream("")
    if path is not None:
        server: asyncio.AbstractServer = await asyncio.start_unix_server(upstream.serve, path)
        upstream.target = f"unix:{path}"
    else:
        server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0, ssl=tls)
        scheme = "http" if tls is None else "https"
        upstream.target = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield upstream
    finally:
        server.close()


class Client:
    """One connection to the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def send_in_pieces(self, data: bytes, size: int) -> None:
        """Send so that the other side sees the pieces apart: both run on this loop."""
        for start in range(0, len(data), size):
            if self.writer.is_closing():
                return  # the other side has heard enough
            self.writer.write(data[start : start + size])
            await asyncio.sleep(0)

    def get(self, target: str, *fields: str, method: str = "GET", host: str = "hub.test") -> None:
        lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *fields, "", ""]
        self.send("\r\n".join(lines).encode("latin-1"))

    async def ask(
        self, target: str, *fields: str, method: str = "GET", host: str = "hub.test"
    ) -> Message:
        self.get(target, *fields, method=method, host=host)
        return await self.response(method)

    async def head(self) -> Message:
        async with asyncio.timeout(WAIT_SECONDS):
            return await read_head(self.reader)

    async def response(self, method: str = "GET") -> Message:
        async with asyncio.timeout(WAIT_SECONDS):
            message = await read_head(self.reader)
            if method == "HEAD" or message.status in (204, 304) or message.status < 200:
                return message
            if message.one("transfer-encoding"):
                while chunk := await read_chunk(self.reader):
                    message.body += chunk
            elif (length := message.one("content-length")) is not None:
                message.body = await self.reader.readexactly(int(length))
            else:
                message.body = await self.reader.read()
            return message

    async def rest(self) -> bytes:
        """Return what comes until the connection ends; a reset ends it too."""
        data = b""
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                try:
                    part = await self.reader.read(65536)
                except ConnectionError:
                    return data
                if not part:
                    return data
                data += part

    async def close(self) -> None:
        self.writer.close()


@asynccontextmanager
async def connect(port: int, *, local: str = "127.0.0.1") -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(local, 0))
    client = Client(reader, writer)
    try:
        yield client
    finally:
        writer.close()


async def eventually(condition: Callable[[], bool]) -> None:
    """Return as soon as a condition holds; fail if it takes too long."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not condition():  # noqa: ASYNC110 - conditions of any kind have no event
            await asyncio.sleep(0.005)

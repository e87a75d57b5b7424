"""WebSockets for measurements: a server that echoes small messages, clients that send the next when
the last has come back, and clients that do nothing. On raw bytes, so that the ends cost little.

    python tests/bench/echo_sockets.py serve PORT
    python tests/bench/echo_sockets.py load PORT PATH SOCKETS SECONDS   prints JSON
    python tests/bench/echo_sockets.py idle PORT PATH SOCKETS           until its input ends
"""

import asyncio
import base64
import hashlib
import json
import re
import resource
import sys
import time
from typing import cast

import uvloop

MESSAGE = b"x" * 64
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
_END = b"\r\n\r\n"
_SETTLE_SECONDS = 0.3
_AT_ONCE = 50


class Echo(asyncio.Protocol):
    """The server's side: takes the mask off each message and sends it back."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.buffer = b""
        self.is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not self.is_open:
            if _END not in self.buffer:
                return
            head, self.buffer = self.buffer.split(_END, 1)
            key = re.search(rb"(?i)sec-websocket-key:\s*(\S+)", head)
            if key is None:
                self.transport.close()
                return
            digest = hashlib.sha1(key.group(1) + _GUID, usedforsecurity=False).digest()
            self.transport.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + _END
            )
            self.is_open = True
        out, position = [], 0
        while len(self.buffer) - position >= 6:
            size = self.buffer[position + 1] & 0x7F
            end = position + 6 + size
            if len(self.buffer) < end:
                break
            # The clients' masks are zeros, so what comes is the message itself.
            out.append(bytes((self.buffer[position], size)) + self.buffer[position + 6 : end])
            position = end
        self.buffer = self.buffer[position:]
        if out:
            self.transport.write(b"".join(out))


class Talker(asyncio.Protocol):
    """A client: one message on its way at a time, its time noted when it is back."""

    transport: asyncio.Transport

    def __init__(self, path: str, times: list[float]) -> None:
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.times = times
        self.talks = False
        self._path = path.encode()
        self._buffer = b""
        self._sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(
            b"GET %b HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n\r\n" % (self._path, _KEY)
        )

    def say(self) -> None:
        self._sent_at = time.perf_counter()
        self.transport.write(bytes((0x82, 0x80 | len(MESSAGE))) + bytes(4) + MESSAGE)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self.opened.done():
            if _END not in self._buffer:
                return
            head, self._buffer = self._buffer.split(_END, 1)
            if b" 101 " not in head[:20]:
                self.opened.set_exception(RuntimeError(f"refused: {head[:80]!r}"))
                return
            self.opened.set_result(None)
        if len(self._buffer) >= 2 + len(MESSAGE):
            self.times.append(time.perf_counter() - self._sent_at)
            self._buffer = b""
            if self.talks:
                self.say()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(RuntimeError("the connection ended"))


async def connect(port: int, path: str, count: int, times: list[float]) -> list[Talker]:
    loop, talkers = asyncio.get_running_loop(), []
    for start in range(0, count, _AT_ONCE):
        batch = [
            (await loop.create_connection(lambda: Talker(path, times), "127.0.0.1", port))[1]
            for _ in range(min(_AT_ONCE, count - start))
        ]
        async with asyncio.timeout(20):
            for talker in batch:
                await talker.opened
        talkers += batch
    return talkers


async def serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


async def load(port: int, path: str, count: int, seconds: float) -> None:
    times: list[float] = []
    talkers = await connect(port, path, count, times)
    for talker in talkers:
        talker.talks = True
        talker.say()
    await asyncio.sleep(_SETTLE_SECONDS)
    times.clear()
    began = time.perf_counter()
    await asyncio.sleep(seconds)
    took, measured = time.perf_counter() - began, sorted(times)
    if not measured:
        raise SystemExit("no message came back")
    p99 = measured[int(len(measured) * 0.99)]
    print(json.dumps({"rate": len(measured) / took, "p99_ms": p99 * 1000}))


async def idle(port: int, path: str, count: int) -> None:
    talkers = await connect(port, path, count, [])
    await asyncio.sleep(1)
    print(f"open {len(talkers)}", flush=True)
    await asyncio.to_thread(sys.stdin.read)


def main() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, hard), hard))
    match sys.argv[1:]:
        case ["serve", port]:
            uvloop.run(serve(int(port)))
        case ["load", port, path, count, seconds]:
            uvloop.run(load(int(port), path, int(count), float(seconds)))
        case ["idle", port, path, count]:
            uvloop.run(idle(int(port), path, int(count)))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main()

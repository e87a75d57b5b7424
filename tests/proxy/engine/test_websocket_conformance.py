"""W15: the proxy adds no failure to a WebSocket and takes none away (RFC 6455).

It passes bytes on, so it is right if what arrives is what was sent, the wrong things too: those are
for the ends to find. The cases are those that a conformance suite has for ends.
"""

import asyncio
import os
import struct
from collections.abc import Sequence

import pytest
from proxy.engine.test_tunnel import SWITCH, open_tunnel
from proxy.running import Running, plain_route
from proxy.wire import Upstream, read_request
from websockets.asyncio.client import connect as open_websocket
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

CONTINUED, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
SIZES = (0, 1, 124, 125, 126, 127, 128, 65_535, 65_536, 65_537)


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool
) -> bytes:
    size = len(payload)
    first = fin << 7 | rsv << 4 | opcode
    mark = 0x80 if masked else 0
    if size < 126:
        head = bytes((first, mark | size))
    elif size < 1 << 16:
        head = struct.pack("!BBH", first, mark | 126, size)
    else:
        head = struct.pack("!BBQ", first, mark | 127, size)
    if not masked:
        return head + payload
    key = b"\x01\x80\xfe\x7f"
    repeated = (key * (size // 4 + 1))[:size]
    mixed = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
    return head + key + mixed.to_bytes(size, "big")


def closes(*codes: int) -> list[tuple[int, bytes]]:
    return [(CLOSE, struct.pack("!H", code) + b"why") for code in codes]


Part = tuple[int, bytes] | tuple[int, bytes, bool] | tuple[int, bytes, bool, int]

CASES: dict[str, Sequence[Part]] = {
    "sizes of text": [(TEXT, b"x" * size) for size in SIZES],
    "sizes of binary": [(BINARY, os.urandom(size)) for size in SIZES],
    "pings and pongs": [
        *((PING, b"p" * size) for size in (0, 1, 125)),
        *((PONG, b"unasked" * size) for size in (0, 1)),
        (PING, b"longer than allowed" * 10),
    ],
    "fragments": [
        (TEXT, b"one ", False),
        (PING, b"in between"),
        (CONTINUED, b"two ", False),
        (PONG, b"in between"),
        (CONTINUED, b"", False),
        (CONTINUED, b"three"),
        (BINARY, b"", False),
        (CONTINUED, b""),
    ],
    "fragments in a wrong order": [
        (CONTINUED, b"of nothing"),
        (TEXT, b"begun", False),
        (TEXT, b"and begun again"),
        (PING, b"a part", False),
    ],
    "reserved bits": [(TEXT, b"x", True, bits) for bits in range(1, 8)],
    "reserved opcodes": [(opcode, b"?") for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)],
    "text that is UTF-8": [
        (TEXT, "κόσμε \U0010ffff \ufffd \u07ff\u0800\uffff".encode()),
        (TEXT, "κ".encode()[:1], False),  # a character in two fragments
        (CONTINUED, "κ".encode()[1:]),
    ],
    "text that is none": [
        (TEXT, bad)
        for bad in (b"\xce\xba\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80", b"\xff", b"\xe2\x82")
    ],
    "no reason to close": [(CLOSE, b"")],
    "half a code": [(CLOSE, b"\x03")],
    "a reason that is no text": [(CLOSE, struct.pack("!H", 1000) + b"\xff")],
    "the longest reason": [(CLOSE, struct.pack("!H", 1000) + b"y" * 123)],
    "codes": closes(1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999),
    "codes that nobody may send": closes(0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 65535),
    "data after the end": [*closes(1000), (TEXT, b"still here"), (PING, b"")],
    "very long": [(BINARY, os.urandom(8 << 20))],
}


def on_the_wire(parts: Sequence[Part], *, masked: bool) -> bytes:
    return b"".join(
        frame(
            part[0],
            part[1],
            fin=part[2] if len(part) > 2 else True,
            rsv=part[3] if len(part) > 3 else 0,
            masked=masked,
        )
        for part in parts
    )


async def pour(writer: asyncio.StreamWriter, data: bytes, size: int) -> None:
    for start in range(0, len(data), size):
        writer.write(data[start : start + size])
        await writer.drain()
        if size < 100:
            await asyncio.sleep(0)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("size", [1, 7, 1 << 16])
async def test_frames_arrive_as_they_were_sent(
    case: str, size: int, running: Running, upstream: Upstream
) -> None:
    there, back = (on_the_wire(CASES[case], masked=masked) for masked in (True, False))
    size = max(size, len(there) // 2000)
    arrived: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(SWITCH)
        async with asyncio.TaskGroup() as group:
            group.create_task(pour(writer, back, size))
            arrived.set_result(await reader.readexactly(len(there)))
        writer.write_eof()
        await reader.read()

    upstream.script = script
    async with running.client() as client:
        await open_tunnel(client)
        async with asyncio.TaskGroup() as group:
            group.create_task(pour(client.writer, there, size))
            got = await client.reader.readexactly(len(back))
        assert got == back
        assert await arrived == there
        assert await client.reader.read() == b""


async def converse(port: int, compression: str | None, code: int) -> list[object]:
    """Say something of everything to a server, and return all that came of it."""
    heard: list[object] = []
    address = f"ws://127.0.0.1:{port}/x"
    async with open_websocket(address, compression=compression, max_size=None) as client:
        heard.append(
            str(
                client.response.headers["Sec-WebSocket-Extensions"]
                if client.response and "Sec-WebSocket-Extensions" in client.response.headers
                else ""
            )
        )
        for message in ("", "κόσμε", "a" * 70_000, b"", bytes(range(256)) * 300):
            await client.send(message)
            heard.append(await client.recv())
        await client.send(["frag", "ment", "s"])
        heard.append(await client.recv())
        await (await client.ping(b"x" * 125))
        await client.send(f"close {code}")
        try:
            await client.recv()
        except ConnectionClosed as error:
            heard.append(
                (error.rcvd and (error.rcvd.code, error.rcvd.reason), error.rcvd_then_sent)
            )
    return heard


@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_two_real_ends_hear_through_it_what_they_hear_without(
    compression: str | None, running: Running
) -> None:
    async def answer(connection: ServerConnection) -> None:
        async for message in connection:
            if isinstance(message, str) and message.startswith("close "):
                await connection.close(int(message[6:]), "as you wish")
            else:
                await connection.send(message)

    async with serve(answer, "127.0.0.1", 0, max_size=None) as server:
        port = server.sockets[0].getsockname()[1]
        running.route(plain_route(f"http://127.0.0.1:{port}"))
        for code in (1000, 1001, 1011, 3000, 4000, 4999):
            direct = await converse(port, compression, code)
            assert direct[-1] == ((code, "as you wish"), True)
            assert await converse(running.port, compression, code) == direct
            assert ("permessage-deflate" in str(direct[0])) == (compression is not None)

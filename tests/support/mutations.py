"""Hostile messages made of the corpus: bytes inserted, doubled, deleted; lines in another order."""

import json
import random
from pathlib import Path

_CORPUS = Path(__file__).resolve().parents[1] / "proxy" / "corpus.json"
_HOST = b"hub.test"
TOKENS = (
    *(b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b";", b",", b"0", b"\xff", b"\x85", b"\x0b"),
    *(b"\r\n\r\n", b"0\r\n\r\n", b"5\r\nhello\r\n", b"/..", b"%2f", b"HTTP/1.0", b"HTTP/1.1"),
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"transfer-encoding: Chunked\r\n",
    b"Connection: close\r\n",
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    b"Expect: 100-continue\r\n",
    b"Trailer: x\r\n",
    b"Host: other.test\r\n",
    b"GET /x HTTP/1.1\r\nHost: hub.test\r\n\r\n",
)
_GOOD = (
    b"GET /a?b HTTP/1.1\r\nHost: hub.test\r\nAccept: */*\r\nCookie: a=1\r\n\r\n",
    b"POST /p HTTP/1.1\r\nHost: hub.test\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello",
    b"PUT /q HTTP/1.1\r\nHost: hub.test\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: 1\r\n\r\n",
    b"HEAD /h HTTP/1.1\r\nHost: hub.test\r\n\r\n",
    b"GET /ws HTTP/1.1\r\nHost: hub.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nbytes",
    b"GET /1 HTTP/1.1\r\nHost: hub.test\r\n\r\nGET /2 HTTP/1.1\r\nHost: hub.test\r\n\r\n",
)


def messages() -> list[bytes]:
    """Return the corpus, and messages that are good."""
    corpus = json.loads(_CORPUS.read_text(encoding="utf-8"))
    return [*(entry["raw"].encode("latin-1") for entry in corpus), *_GOOD]


def mutated(chance: random.Random, pool: list[bytes], host: bytes) -> bytes:
    """Return a message with up to four faults, for a host of its own."""
    data = chance.choice(pool)
    if chance.random() < 0.2:
        data += chance.choice(pool)
    data = data.replace(_HOST, host)
    for _ in range(chance.randrange(5)):
        data = chance.choice(_FAULTS)(chance, data)
    return data[: 64 * 1024]


def _insert(chance: random.Random, data: bytes) -> bytes:
    place = chance.randrange(len(data) + 1)
    token = chance.choice(TOKENS) if chance.random() < 0.8 else chance.randbytes(1)
    return data[:place] + token + data[place:]


def _double(chance: random.Random, data: bytes) -> bytes:
    start, end = _span(chance, data)
    return data[:end] + data[start:end] + data[end:]


def _delete(chance: random.Random, data: bytes) -> bytes:
    start, end = _span(chance, data)
    return data[:start] + data[end:]


def _replace(chance: random.Random, data: bytes) -> bytes:
    place = chance.randrange(len(data) + 1)
    return data[:place] + chance.randbytes(1) + data[place + 1 :]


def _reorder(chance: random.Random, data: bytes) -> bytes:
    first, *lines = data.split(b"\r\n")
    chance.shuffle(lines)
    return b"\r\n".join([first, *lines])


def _cut(chance: random.Random, data: bytes) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def _span(chance: random.Random, data: bytes) -> tuple[int, int]:
    start = chance.randrange(len(data) + 1)
    return start, min(len(data), start + chance.choice((1, 1, 2, 5, 20, 60)))


_FAULTS = (_insert, _insert, _double, _delete, _replace, _reorder, _cut)

"""WebSockets through a real proxy whose far ends vanish: their network is cut, nobody closes.

Half of the sockets lose their client, half their server; on half of each somebody goes on sending
into the void. Run as a program this module is one of those ends.
"""

import argparse
import asyncio
import base64
import contextlib
import hashlib
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep

import httpx

from carrel_shared.service_auth import service_headers
from carrel_shared.wire.routes import Route, RouteTable
from support.namespaces import HERE, THERE, Cable, cable
from support.process_trees import descriptors

KEY = "k" * 40
PORT = 8000
TARGET_PORT = 9000
PATIENCE_SECONDS = 60.0
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_HANDSHAKE = (
    "GET /{path}/{kind} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
_PING = b"\x89\x00"


@dataclass
class Outcome:
    """What was seen of the proxy.

    Attributes:
        sockets: How many were opened: fewer than asked for where the limit on descriptors is lower.
        before: Its descriptors before any socket was open.
        opened: With all of them open.
        left: Descriptors at each second since the cut, beyond `before`.
    """

    sockets: int
    before: int = 0
    opened: int = 0
    left: list[tuple[float, int]] = field(default_factory=list)


def run(directory: Path, sockets: int, vanished_seconds: float, watch_seconds: float) -> Outcome:
    """Open sockets, cut their network, and watch the proxy until it has forgotten them all."""
    sockets = _most_sockets(sockets)
    outcome = Outcome(sockets)
    with ExitStack() as stack:
        net = stack.enter_context(cable())
        for namespace in (net.here, net.there):
            _wait_for(stack.enter_context(_end(net, namespace, "target")), "ready")
        proxy = stack.enter_context(_proxy(net, directory, vanished_seconds))
        outcome.before = _settled(proxy)
        ends = [
            stack.enter_context(_end(net, namespace, "clients", path, str(sockets // 2)))
            for namespace, path in ((net.there, "in"), (net.here, "out"))
        ]
        for end in ends:
            _wait_for(end, "open")
        outcome.opened = _settled(proxy)
        net.cut()
        cut_at = monotonic()
        while (elapsed := monotonic() - cut_at) < watch_seconds:
            left = descriptors(proxy) - outcome.before
            outcome.left.append((elapsed, left))
            if left <= 0:
                break
            sleep(0.5)
    return outcome


@contextmanager
def _proxy(net: Cable, directory: Path, vanished_seconds: float) -> Iterator[int]:
    settings = {
        "bind": f"{HERE}:{PORT}",
        "insecure": "true",
        "control_listen": f"unix:{directory}/control.sock",
        "control_key": KEY,
        "hub_url": f"unix:{directory}/hub.sock",
        "hub_key": KEY,
        "state_dir": f"{directory}/state",
        "vanished_seconds": str(vanished_seconds),
        "connect_seconds": "60",
        "max_connections_per_address": "0",
        "max_connections_per_route": "0",
    }
    wired = {f"CARREL_PROXY__{name.upper()}": value for name, value in settings.items()}
    env = {"PATH": os.environ["PATH"]} | wired
    with net.process(net.here, ["-m", "carrel_proxy"], env) as process:
        routes = [
            Route(prefix="/in/", targets=[f"http://127.0.0.1:{TARGET_PORT}"]),
            Route(prefix="/out/", targets=[f"http://{THERE}:{TARGET_PORT}"]),
        ]
        table = RouteTable(epoch="e", number=1, routes=routes)
        _wait_until_listening(f"{directory}/control.sock")
        transport = httpx.HTTPTransport(uds=f"{directory}/control.sock")
        headers = service_headers(KEY) | {"Content-Type": "application/json"}
        with httpx.Client(transport=transport, base_url="http://proxy", timeout=60) as control:
            reply = control.put("/control/v1/table", content=table.json(), headers=headers)
            reply.raise_for_status()
        yield process.pid


def _wait_until_listening(path: str) -> None:
    until = monotonic() + PATIENCE_SECONDS
    while monotonic() < until:
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(path) == 0:
                return
        sleep(0.05)
    raise RuntimeError(f"nobody listens on {path}")


@contextmanager
def _end(net: Cable, namespace: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    path = os.pathsep.join([str(Path(__file__).resolve().parents[1]), *sys.path])
    with net.process(
        namespace,
        ["-m", "support.abandoned", *arguments],
        {"PATH": os.environ["PATH"], "PYTHONPATH": path},
    ) as process:
        yield process


def _wait_for(process: subprocess.Popen[str], word: str) -> None:
    line = process.stdout.readline() if process.stdout is not None else ""
    if line.strip() != word:
        raise RuntimeError(f"expected {word!r} of a helper, got {line!r}")


def _settled(pid: int) -> int:
    """Return the number of descriptors once it has not changed for a moment."""
    seen = [descriptors(pid)]
    while seen[-4:] != [seen[-1]] * 4:
        sleep(0.1)
        seen.append(descriptors(pid))
    return seen[-1]


def _most_sockets(wanted: int) -> int:
    """Raise the limit on descriptors, of which each socket takes two, or stay below it."""
    needed = 2 * wanted + 200
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < needed:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed, needed))
        except (OSError, ValueError):
            wanted = (hard - 200) // 2
    return wanted


# --- the ends ---


async def _serve() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        key = head.lower().index(b"sec-websocket-key:")
        value = head[key + 18 :].split(b"\r\n")[0].strip()
        accept = base64.b64encode(hashlib.sha1(value + _GUID, usedforsecurity=False).digest())
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        with contextlib.suppress(ConnectionError):
            while b"/chatty" in head and not writer.is_closing():
                writer.write(_PING)
                await asyncio.sleep(1)
            await reader.read()

    await asyncio.start_server(answer, "0.0.0.0", TARGET_PORT, backlog=4096)
    print("ready", flush=True)
    await asyncio.Event().wait()


async def _connect(path: str, count: int) -> None:
    kept: list[asyncio.StreamWriter] = []

    async def one(number: int) -> None:
        kind = ("quiet", "chatty")[number % 2]
        reader, writer = await asyncio.open_connection(HERE, PORT)
        kept.append(writer)
        writer.write(_HANDSHAKE.format(path=path, kind=kind).encode())
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 101 " not in head:
            raise RuntimeError(head)

    async def chatter() -> None:
        while True:
            for writer in kept[1::2]:
                writer.write(b"\x89\x80\0\0\0\0")
            await asyncio.sleep(1)

    for start in range(0, count, 100):
        await asyncio.gather(*(one(n) for n in range(start, min(start + 100, count))))
    print("open", flush=True)
    await chatter()


def main() -> None:
    """Be one of the ends until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=("target", "clients"))
    parser.add_argument("path", nargs="?", default="")
    parser.add_argument("count", nargs="?", type=int, default=0)
    options = parser.parse_args()
    asyncio.run(_serve() if options.role == "target" else _connect(options.path, options.count))


if __name__ == "__main__":
    main()

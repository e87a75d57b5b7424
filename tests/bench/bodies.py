"""Send a large body through a proxy each way, and watch its memory.

    python tests/bench/bodies.py [--gib 10]

The proxy is a process of its own on loopback; the target and the client are this one.
"""

import argparse
import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.process_trees import end, resident_mib

BLOCK = b"x" * (256 * 1024)


async def take(reader: asyncio.StreamReader, size: int) -> None:
    """Read and forget so many bytes."""
    while size > 0:
        data = await reader.read(1 << 20)
        if not data:
            raise RuntimeError(f"{size} bytes are missing")
        size -= len(data)


async def give(writer: asyncio.StreamWriter, size: int) -> None:
    """Write so many bytes."""
    for _ in range(size // len(BLOCK)):
        writer.write(BLOCK)
        await writer.drain()


async def watched(work: Coroutine[Any, Any, None], pid: int) -> float:
    """Return the most memory a proxy had while this was done, looked at twice a second."""
    most = resident_mib(pid)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work)
        while not task.done():
            await asyncio.wait([task], timeout=0.5)
            most = max(most, resident_mib(pid))
    return most


async def main() -> int:
    """Print the memory before, at most and after; the status is 1 if it grew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, default=10)
    size = int(parser.parse_args().gib * 4096) * len(BLOCK)
    taken = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"POST "):
            await take(reader, size)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            taken.set()
        else:
            lines = b"Content-Length: %d\r\nConnection: close\r\n\r\n" % size
            writer.write(b"HTTP/1.1 200 OK\r\n" + lines)
            await give(writer, size)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 20)
    address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    port = free_port()
    command = [sys.executable, "-m", "carrel_proxy", "--ip", "127.0.0.1", "--port", str(port)]
    command += ["--api-ip", "127.0.0.1", "--api-port", str(free_port())]
    command += ["--default-target", address, "--log-level", "error"]
    proxy = subprocess.Popen(command, env={"PATH": os.environ["PATH"]})  # noqa: ASYNC220
    try:
        good = True
        for way in ("download", "upload"):
            reader, writer = await connect(port)
            before, began = resident_mib(proxy.pid), time.monotonic()
            most = before
            if way == "download":
                writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
                await reader.readuntil(b"\r\n\r\n")
                most = await watched(take(reader, size), proxy.pid)
            else:
                writer.write(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % size)
                most = await watched(give(writer, size), proxy.pid)
                await taken.wait()
            seconds = time.monotonic() - began
            after = resident_mib(proxy.pid)
            print(
                f"{way}: {size / (1 << 30):.1f} GiB in {seconds:.0f} s, memory {before:.1f} MiB"
                f" before, {most:.1f} at most, {after:.1f} after",
                flush=True,
            )
            good = good and most < before + 32
            writer.close()
        return 0 if good else 1
    finally:
        end(proxy)


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to the proxy as soon as it listens."""
    for _ in range(300):
        try:
            return await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
        except OSError:
            await asyncio.sleep(0.1)
    raise RuntimeError("the proxy does not listen")


def free_port() -> int:
    """Return a port that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(uvloop.run(main()))

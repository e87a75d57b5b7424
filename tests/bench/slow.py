"""Hold as many slow connections open as a proxy takes, and see what others notice: threat D02.

    python tests/bench/slow.py [--connections 9900] [--seconds 15]

Each sends a byte of a head a second and comes again when it is hung up on. They come from several
addresses, since one may have 2,000; more from one of those must be refused. Printed are what
somebody else waits for an answer, on a connection that is kept and on a new one each time, before,
during and after; the memory; and how soon all are forgotten after they left. Those who attack share
the machine with the proxy, so the same is measured while they attack something else (`beside`):
only what comes on top of that is the proxy's own. The limit on
descriptors bounds how many there can be: two for each client of the proxy, one for each here.
"""

import argparse
import asyncio
import contextlib
import http.client
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.contenders import Contender, free_port, open_field, resident_mib
from bench.routes import start_own

PER_ADDRESS = 2000
SAMPLES = 300
AT_ONCE = 100
"""Connections that are begun at a time: nobody has to wait in a full queue."""


# --- who attacks, in a process of its own ---


async def attack(port: int, connections: int) -> None:
    """Drip until cut off. A line says when all are there."""
    loop = asyncio.get_running_loop()
    turns = asyncio.Semaphore(AT_ONCE)
    there = 0

    async def drip(number: int) -> None:
        nonlocal there
        local = f"127.0.1.{number // PER_ADDRESS + 1}"
        counted = False
        while True:
            with contextlib.suppress(OSError):
                async with turns:
                    transport, _ = await loop.create_connection(
                        asyncio.Protocol, "127.0.0.1", port, local_addr=(local, 0)
                    )
                there += not counted
                counted = True
                if there == connections:
                    print("there", flush=True)
                    there += 1
                for byte in (
                    b"GET /r/user1/small HTTP/1.1\r\nHost: slow.test\r\nX-Slow: " + 99 * b"x"
                ):
                    if transport.is_closing():
                        break
                    transport.write(bytes([byte]))
                    await asyncio.sleep(1)
                transport.abort()

    async with asyncio.TaskGroup() as group:
        for number in range(connections):
            group.create_task(drip(number))


# --- who is disturbed ---


def waits(port: int, *, new: bool) -> list[float]:
    """Return the milliseconds that answers took."""
    found = []
    connection = http.client.HTTPConnection("127.0.0.1", port)
    for _ in range(SAMPLES):
        before = time.perf_counter()
        connection.request("GET", "/r/user1/small")
        reply = connection.getresponse()
        reply.read()
        found.append(1000 * (time.perf_counter() - before))
        if reply.status != 200:
            raise SystemExit(f"somebody else was answered with {reply.status}")
        if new:
            connection.close()
        time.sleep(0.003)
    connection.close()
    return found


def p99(found: list[float]) -> float:
    return statistics.quantiles(found, n=100)[98]


def report(when: str, proxy: Contender, seconds: float = 0) -> tuple[list[float], list[float]]:
    """Print what others wait for so long, or for one round; return it all, kept and new."""
    kept: list[float] = []
    new: list[float] = []
    until = time.monotonic() + seconds
    while not kept or time.monotonic() < until:
        kept += waits(proxy.port, new=False)
        new += waits(proxy.port, new=True)
    line = f"{when:8}"
    for name, found in (("kept", kept), ("new", new)):
        line += f"  {name}: {statistics.median(found):5.2f} ms, p99 {p99(found):6.2f} ms"
    print(f"{line}  {resident_mib(proxy.process.pid):6.1f} MiB", flush=True)
    return kept, new


async def sink(port: int) -> None:
    """Take what is sent, and hang up after ten seconds: something else to attack."""
    loop = asyncio.get_running_loop()

    class Takes(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            loop.call_later(10, transport.close)

    server = await loop.create_server(Takes, "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


@contextlib.contextmanager
def attackers(port: int, connections: int) -> Iterator[None]:
    command = [sys.executable, __file__, "--attack", str(port), "--connections", str(connections)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        if process.stdout is None or process.stdout.readline() != "there\n":
            raise SystemExit("they could not all connect")
        yield
        process.kill()


def connections_of(control: int) -> int:
    health = httpx.get(f"http://127.0.0.1:{control}/control/v1/health", trust_env=False).json()
    count: int = health["connections"]
    return count


def refused_beyond(port: int) -> str:
    """Return what one connection too many from a full address is told."""
    one = http.client.HTTPConnection("127.0.0.1", port, source_address=("127.0.1.1", 0))
    one.request("GET", "/")
    return f"{one.getresponse().status}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--connections", type=int, default=9900)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--sink", type=int, metavar="PORT", help=argparse.SUPPRESS)
    parser.add_argument("--attack", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if options.attack:
        asyncio.run(attack(options.attack, options.connections))
        return
    if options.sink:
        uvloop.run(sink(options.sink))
        return
    with open_field() as field:
        field.start_targets()
        proxy, control = start_own(field)
        elsewhere = free_port()
        field.run([sys.executable, __file__, "--sink", str(elsewhere)], [elsewhere])
        report("before", proxy, options.seconds / 3)
        with attackers(elsewhere, options.connections):
            beside = report("beside", proxy, options.seconds)
        with attackers(proxy.port, options.connections):
            print(f"{connections_of(control)} connections of {options.connections}")
            print(f"one more from a full address: {refused_beyond(proxy.port)}")
            during = report("during", proxy, options.seconds)
        left = time.monotonic()
        while connections_of(control) > 0:
            time.sleep(0.05)
        print(f"all forgotten after {time.monotonic() - left:.1f} s")
        report("after", proxy, options.seconds / 3)
        for name, mine, other in zip(("kept", "new"), during, beside, strict=True):
            print(f"{name}: p99 during is {p99(mine) / p99(other):.2f}x that beside")


if __name__ == "__main__":
    main()

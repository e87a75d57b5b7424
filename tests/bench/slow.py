"""Hold as many slow connections open as a proxy takes, and see what others notice: threat D02.

    python tests/bench/slow.py [--connections 9900] [--seconds 15]

Each sends a byte of a head a second and comes again when it is hung up on. They come from several
addresses, since one may have 2,000; more from one of those must be refused. Printed are what
somebody else waits for an answer, on a connection that is kept and on a new one each time, before,
during and after; the memory; and how soon all are forgotten after they left. The limit on
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
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.contenders import Contender, open_field, resident_mib
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


def report(when: str, proxy: Contender) -> None:
    line = f"{when:8}"
    for new in (False, True):
        found = waits(proxy.port, new=new)
        p99 = statistics.quantiles(found, n=100)[98]
        line += (
            f"  {'new' if new else 'kept'}: {statistics.median(found):5.2f} ms, p99 {p99:6.2f} ms"
        )
    print(f"{line}  {resident_mib(proxy.process.pid):6.1f} MiB", flush=True)


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
    parser.add_argument("--attack", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if options.attack:
        asyncio.run(attack(options.attack, options.connections))
        return
    with open_field() as field:
        field.start_targets()
        proxy, control = start_own(field)
        report("before", proxy)
        command = [sys.executable, __file__, "--attack", str(proxy.port)]
        command += ["--connections", str(options.connections)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as attackers:
            if attackers.stdout is None or attackers.stdout.readline() != "there\n":
                raise SystemExit("they could not all connect")
            print(f"{connections_of(control)} connections of {options.connections}")
            print(f"one more from a full address: {refused_beyond(proxy.port)}")
            until = time.monotonic() + options.seconds
            while time.monotonic() < until:
                report("during", proxy)
            attackers.kill()
        left = time.monotonic()
        while connections_of(control) > 0:
            time.sleep(0.05)
        print(f"all forgotten after {time.monotonic() - left:.1f} s")
        report("after", proxy)


if __name__ == "__main__":
    main()

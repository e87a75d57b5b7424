"""Send mutated messages to a real proxy, while others use it, and see that nothing comes of them.

    python tests/bench/fuzz.py [--connections 100000] [--seed 1] [--minutes 30]

Half of the connections go to the proxy of Carrel, half to the one that takes the place of
configurable-http-proxy. At the end each must be up, with the descriptors and the memory it had
after the first thousands, no request may have reached the target in a form that is not plain HTTP,
and nobody may have been answered what another had asked. Everything is on loopback.
"""

import argparse
import asyncio
import contextlib
import os
import random
import re
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.mutations import messages, mutated
from support.process_trees import descriptors, end, resident_mib

KEY = "k" * 40
AT_ONCE = 48
WARM_UP = 3000
HEAD_END = b"\r\n\r\n"
_REQUEST = re.compile(
    rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+ (/[\x21-\x7e]*) HTTP/1\.1\r\n"
    rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*\r\n)+\r\n"
)
_ECHO = re.compile(rb"\[host ([^\]]*) target ([^\]]*)\]")
_SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


class Target:
    """Answers each request with its own host and target, and notes what is no plain request."""

    def __init__(self) -> None:
        self.requests = 0
        self.odd: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await self._answer(reader, writer):
                pass
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        try:
            head = await reader.readuntil(HEAD_END)
        except asyncio.LimitOverrunError:
            return False
        self.requests += 1
        match = _REQUEST.fullmatch(head)
        fields = [line.split(b":", 1) for line in head[:-4].split(b"\r\n")[1:]]
        values: dict[bytes, list[bytes]] = {}
        for name, value in (field for field in fields if len(field) == 2):
            values.setdefault(name.lower(), []).append(value.strip())
        hosts = values.get(b"host", [])
        if match is None or len(hosts) != 1 or not await self._take_body(reader, values):
            self.odd.append(head)
            return False
        if b"upgrade" in values:
            writer.write(_SWITCH)
            await reader.read()
            return False
        echo = b"[host %b target %b]" % (hosts[0], match.group(1))
        body = b"" if head.startswith(b"HEAD ") else echo
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(echo), body))
        return True

    async def _take_body(
        self, reader: asyncio.StreamReader, values: dict[bytes, list[bytes]]
    ) -> bool:
        lengths = values.get(b"content-length", [])
        codings = values.get(b"transfer-encoding", [])
        if len(lengths) + len(codings) > 1:
            return False
        if codings:
            while True:
                line = await reader.readuntil(b"\r\n")
                if not re.fullmatch(rb"[0-9a-f]+\r\n", line):
                    return False
                data = await reader.readexactly(int(line, 16) + 2)
                if data[-2:] != b"\r\n":
                    return False
                if len(data) == 2:
                    return codings == [b"chunked"]
        if lengths:
            await reader.readexactly(int(lengths[0]))
        return True


class Run:
    """One proxy, and what was seen of it."""

    def __init__(self, port: int, seed: int) -> None:
        self.port = port
        self.chance = random.Random(seed)  # noqa: S311 - must be repeatable
        self.pool = messages()
        self.wrong: list[str] = []
        self.statuses: Counter[bytes] = Counter()
        self.canaries = 0
        self.slowest = 0.0
        self.done = 0

    async def fuzz(self, count: int, until: float) -> None:
        """Open `count` connections, some at a time, while canaries sing."""
        goal = self.done + count
        async with asyncio.TaskGroup() as group:
            singing = [group.create_task(self._sing(number)) for number in range(2)]
            async with asyncio.TaskGroup() as senders:
                for _ in range(AT_ONCE):
                    senders.create_task(self._keep_sending(goal, until))
            for canary in singing:
                canary.cancel()

    async def _keep_sending(self, goal: int, until: float) -> None:
        while self.done < goal and time.monotonic() < until:
            self.done += 1
            host = b"h%016x.test" % self.chance.getrandbits(64)
            sent = mutated(self.chance, self.pool, host)
            with contextlib.suppress(OSError):
                self._judge(sent, await self._exchange(sent))

    async def _exchange(self, sent: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        received = b""
        ending = self.chance.random()
        try:
            step = self.chance.choice(
                (len(sent) + 1, len(sent) + 1, 7, 1 if len(sent) < 300 else 50)
            )
            for start in range(0, len(sent), step):
                if not writer.is_closing():
                    writer.write(sent[start : start + step])
                await asyncio.sleep(0)
            if ending < 0.7 and not writer.is_closing():
                writer.write_eof()
                async with asyncio.timeout(20):
                    while data := await reader.read(65536):
                        received += data
            elif ending < 0.85:
                async with asyncio.timeout(0.05):
                    received += await reader.read(65536)
        except TimeoutError:
            if ending < 0.7:
                self.wrong.append(f"no end within 20 s of {sent!r}")
        finally:
            raw = writer.get_extra_info("socket")
            if raw is not None and self.chance.random() < 0.3:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        return received

    def _judge(self, sent: bytes, received: bytes) -> None:
        self.statuses[received[9:12]] += 1
        if received and not received.startswith(b"HTTP/1.1 "):
            self.wrong.append(f"{received[:60]!r} is no answer, to {sent!r}")
        for host, target in _ECHO.findall(received):
            if b"canary" in target or (host.startswith(b"h") and host not in sent):
                self.wrong.append(f"an answer for {host!r} {target!r}, to {sent!r}")

    async def _sing(self, number: int) -> None:
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            for _ in range(20):
                self.canaries += 1
                target = f"/canary/{number}/{self.canaries}".encode()
                began = time.monotonic()
                writer.write(b"GET %b HTTP/1.1\r\nHost: canary.test\r\n\r\n" % target)
                expected = b"[host canary.test target %b]" % target
                try:
                    async with asyncio.timeout(20):
                        head = await reader.readuntil(HEAD_END)
                        body = await reader.readexactly(len(expected))
                except (OSError, EOFError, TimeoutError) as error:
                    self.wrong.append(f"canary {target!r}: {error!r}")
                    break
                self.slowest = max(self.slowest, time.monotonic() - began)
                if not head.startswith(b"HTTP/1.1 200 ") or body != expected:
                    self.wrong.append(f"canary {target!r}: {head + body!r}")
                await asyncio.sleep(0.01)
            writer.transport.abort()


def free_port() -> int:
    """Return a port that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def settled(pid: int) -> int:
    """Return the descriptors of a process once they stay the same; idle ones close in seconds."""
    seen = [descriptors(pid)]
    while len(seen) < 60 and seen[-12:] != [seen[-1]] * 12:
        await asyncio.sleep(0.5)
        seen.append(descriptors(pid))
    return seen[-1]


@contextlib.asynccontextmanager
async def proxy(mode: str, port: int, target: str, directory: Path) -> AsyncIterator[int]:
    """Run a proxy process of its own; what it says goes to a file."""
    command = [sys.executable, "-m", "carrel_proxy"]
    env = {"PATH": os.environ["PATH"]}
    if mode == "carrel":
        settings = {
            "bind": f"127.0.0.1:{port}",
            "control_listen": f"unix:{directory}/control.sock",
            "control_key": KEY,
            "hub_url": f"unix:{directory}/hub.sock",
            "hub_key": KEY,
            "state_dir": f"{directory}/state",
            "default_target": target,
        }
        env |= {f"CARREL_PROXY__{name.upper()}": value for name, value in settings.items()}
    else:
        command += ["--ip", "127.0.0.1", "--port", str(port), "--default-target", target]
        command += ["--api-ip", "127.0.0.1", "--api-port", str(free_port())]
    with (directory / f"{mode}.log").open("w") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log)  # noqa: ASYNC220
    try:
        for _ in range(200):
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.transport.abort()
                break
            await asyncio.sleep(0.1)
        else:
            raise RuntimeError(f"the proxy does not listen; it is in state {process.poll()}")
        yield process.pid
        if process.poll() is not None:
            raise RuntimeError(f"the proxy ended with status {process.returncode}")
    finally:
        end(process)


async def attack(mode: str, options: argparse.Namespace, directory: Path) -> list[str]:
    """Fuzz one proxy; returns what is wrong with it."""
    target = Target()
    server = await asyncio.start_server(target.serve, "127.0.0.1", 0, limit=1 << 18, backlog=1024)
    address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    port = free_port()
    until = time.monotonic() + options.minutes * 30
    async with proxy(mode, port, address, directory) as pid:
        run = Run(port, options.seed)
        await run.fuzz(min(WARM_UP, options.connections // 4), until)
        before, memory = await settled(pid), resident_mib(pid)
        began = time.monotonic()
        await run.fuzz(options.connections // 2 - run.done, until)
        seconds = time.monotonic() - began
        after, memory_after = await settled(pid), resident_mib(pid)
    server.close()
    statuses = " ".join(
        f"{key.decode('latin-1') or '-'}:{n}" for key, n in run.statuses.most_common(9)
    )
    print(
        f"{mode}: {run.done} connections ({seconds:.0f} s after the warm-up), {target.requests}"
        f" requests reached the target, {run.canaries} canaries (slowest {run.slowest:.2f} s),"
        f" descriptors {before} -> {after}, memory {memory:.1f} -> {memory_after:.1f} MiB\n"
        f"  statuses {statuses}",
        flush=True,
    )
    wrong = [f"the target was sent {head!r}" for head in target.odd] + run.wrong
    if abs(after - before) > 5:
        wrong.append(f"{after - before} descriptors are left")
    if memory_after > memory * 1.1 + 4:
        wrong.append(f"the memory grew from {memory:.1f} to {memory_after:.1f} MiB")
    log = (directory / f"{mode}.log").read_text(encoding="utf-8", errors="replace")
    wrong += [line for line in log.splitlines() if "Traceback" in line or "ERROR" in line][:20]
    return [f"{mode}: {text}" for text in wrong]


async def main() -> int:
    """Print what was seen; the status is 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--connections", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=30, help="give up after that")
    parser.add_argument("--modes", nargs="+", default=["carrel", "chp"])
    options = parser.parse_args()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="cpx-", dir="/tmp") as directory:
        for mode in options.modes:
            wrong += await attack(mode, options, Path(directory))
    for text in wrong[:50]:
        print("WRONG", text)
    print("nothing was wrong" if not wrong else f"{len(wrong)} things were wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(uvloop.run(main()))

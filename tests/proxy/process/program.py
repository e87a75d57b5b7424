"""The whole program, as it is started for people: a parent, its workers, and load on them."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proxy.wire import Client, connect, read_head

from support.ports import free_port

COMMAND = [sys.executable, "-m", "carrel_proxy"]
KEY = "k" * 40
SECONDS = 60.0
"""How long anything may take on a busy machine."""


async def until(what: str, holds: Callable[[], bool]) -> None:
    """Return as soon as something outside of this process holds."""
    try:
        async with asyncio.timeout(SECONDS):
            while not holds():  # noqa: ASYNC110 - other processes send no events
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"{what} did not come about") from None


@dataclass
class Program:
    """A proxy that runs.

    Attributes:
        port: The public one.
        api: The REST API's, or the path of the control socket.
    """

    process: subprocess.Popen[bytes]
    log_file: Path
    port: int
    api: int | Path
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    @property
    def pid(self) -> int:
        return self.process.pid

    def workers(self) -> list[int]:
        """Return the processes of all workers, the oldest first."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return sorted(map(int, children.read_text().split())) if children.exists() else []

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def said(self, words: str, times: int = 1) -> None:
        await until(f"{words!r} in the log", lambda: self.log.count(words) >= times)

    async def reload(self, times: int = 1) -> None:
        """Have it reload, and wait until it has."""
        self.signal(signal.SIGHUP)
        await self.said(" reloaded ", times)

    async def ended(self) -> int:
        await until("the end", lambda: self.process.poll() is not None)
        return self.process.returncode

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        async with connect(self.port) as client:
            yield client

    async def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Call the REST or the control API; return status and what it says."""
        async with asyncio.timeout(SECONDS):
            if isinstance(self.api, Path):
                reader, writer = await asyncio.open_unix_connection(self.api)
            else:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.api)
            if body is None or isinstance(body, bytes):
                content = body or b""
            else:
                content = json.dumps(body).encode()
            fields = (
                f"Authorization: Bearer {KEY}\r\nCarrel-Wire: 1\r\n"
                f"Host: api\r\nConnection: close\r\nContent-Length: {len(content)}\r\n"
            )
            writer.write(f"{method} {path} HTTP/1.1\r\n{fields}\r\n".encode() + content)
            head = await read_head(reader)
            said = await reader.read()
            writer.close()
        return head.status, json.loads(said) if said[:1] in (b"{", b"[") else said.decode()

    async def route(self, path: str, target: str) -> None:
        status, _ = await self.call("POST", f"/api/routes{path}", {"target": target})
        assert status == 201


@asynccontextmanager
async def chp(directory: Path, *options: str, port: int = 0) -> AsyncIterator[Program]:
    """Run it in configurable-http-proxy's place, with an API that is open to this machine."""
    port = port or free_port()
    api = free_port()
    where = ["--ip", "127.0.0.1", "--port", str(port), "--api-ip", "127.0.0.1"]
    command = [*COMMAND, *where, "--api-port", str(api), *options]
    async with _running(directory, command, {}, port, api) as program:
        yield program


@asynccontextmanager
async def carrel(directory: Path, **settings: Any) -> AsyncIterator[Program]:
    """Run it as Carrel's proxy; settings in a file, keys in the environment."""
    port = free_port()
    values = {
        "bind": f"127.0.0.1:{port}",
        "control_listen": f"unix:{directory}/control.sock",
        "hub_url": f"unix:{directory}/hub.sock",
        "state_dir": f"{directory}/state",
    } | settings
    write_settings(directory / "carrel.toml", values)
    environ = {"CARREL_PROXY__CONTROL_KEY": KEY, "CARREL_PROXY__HUB_KEY": KEY}
    command = [*COMMAND, "--config", f"{directory}/carrel.toml"]
    async with _running(directory, command, environ, port, directory / "control.sock") as program:
        await until("control", (directory / "state/process.json").exists)
        yield program


def write_settings(path: Path, values: dict[str, Any]) -> None:
    lines = [f"{name} = {_toml(value)}" for name, value in values.items()]
    path.write_text("\n".join(["[proxy]", *lines, ""]))


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {_toml(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


@asynccontextmanager
async def _running(
    directory: Path, command: list[str], environ: dict[str, str], port: int, api: int | Path
) -> AsyncIterator[Program]:
    program = _start(directory, command, environ, port, api)
    process = program.process
    try:
        await program.said("proxy_started")  # whoever dies from now on is replaced
        yield program
    except Exception as error:
        error.add_note(program.log)
        raise
    finally:
        workers = program.workers()
        if process.poll() is None:
            process.kill()
        process.wait(SECONDS)
        await until("the workers' end", lambda: not any(map(is_alive, workers)))
    assert "Traceback" not in program.log, program.log


def _start(
    directory: Path, command: list[str], environ: dict[str, str], port: int, api: int | Path
) -> Program:
    log_file = directory / f"log-{len(list(directory.glob('log-*')))}"
    environ = {"PATH": os.environ["PATH"]} | environ
    with log_file.open("wb") as log:
        process = subprocess.Popen(command, env=environ, stderr=log, start_new_session=True)
    return Program(process, log_file, port, api, environ)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@dataclass
class Load:
    """Clients that come, ask a few times, and go, over and over.

    Attributes:
        answered: Requests with a whole answer.
        refused: Connections that were refused: nobody listens there.
        lost: What went wrong after a connection was there.
    """

    port: int
    path: str = "/"
    answered: int = 0
    refused: int = 0
    lost: list[str] = field(default_factory=list)
    over: bool = False

    async def run(self) -> None:
        while not self.over:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except ConnectionRefusedError:
                self.refused += 1
                return
            except OSError as error:
                self.lost.append(f"connect: {error!r}")
                return
            try:
                async with asyncio.timeout(SECONDS):
                    await self._ask(reader, writer)
            except (OSError, EOFError, TimeoutError) as error:
                self.lost.append(repr(error))
            finally:
                writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(3):
            writer.write(f"GET {self.path} HTTP/1.1\r\nHost: hub.test\r\n\r\n".encode())
            head = await read_head(reader)
            await reader.readexactly(int(head.one("content-length") or 0))
            if head.status != 200:
                self.lost.append(head.start)
            self.answered += 1
            if (head.one("connection") or "").lower() == "close":
                return

    async def more(self, number: int) -> None:
        """Wait until so many more have been answered."""
        wanted = self.answered + number
        await until(f"{number} answers", lambda: self.answered >= wanted or bool(self.refused))


@asynccontextmanager
async def load_on(port: int, path: str = "/", clients: int = 12) -> AsyncIterator[Load]:
    load = Load(port, path)
    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(load.run())
        try:
            yield load
        finally:
            load.over = True

"""Several real hubs on one PostgreSQL behind a real proxy, and an agent that a test holds."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import asyncpg
import httpx
import uvicorn
from hub.fakes import FakeAgent
from proxy.process import program
from sqlalchemy.engine import make_url

from carrel_hub.db.engine import Database
from carrel_hub.db.migrate import upgrade
from carrel_shared.addresses import UnixAddress, bind_address
from carrel_shared.failover import service_client
from carrel_shared.service_auth import service_headers
from carrel_shared.tasks import TaskOwner

CONSOLE_KEY, AGENT_KEY, SIGNING_KEY = "c" * 32, "K" * 32, "s" * 32
SECONDS = 120.0
"""How long anything may take on a busy machine."""


@dataclass
class Fleet:
    """The replicas by number, and what is around them."""

    directory: Path
    url: str
    numbers: range
    agent: FakeAgent = field(default_factory=FakeAgent)
    processes: dict[int, asyncio.subprocess.Process] = field(default_factory=dict)
    port: int = 0
    token: str = ""
    fleet_ports: Mapping[int, int] = field(default_factory=dict)
    """Where hosts on other machines join and report, by the hubs' numbers."""

    def write_config(self, number: int) -> None:
        port = self.fleet_ports.get(number)
        fleet_listen = f'fleet_listen = "127.0.0.1:{port}"' if port else ""
        (self.directory / f"hub{number}.toml").write_text(
            f"""
[hub]
listen = "unix:{self.directory}/hub{number}.sock"
internal_listen = "unix:{self.directory}/internal{number}.sock"
state_dir = "{self.directory}/state{number}"
database_url = "{self.url}"
signing_key = "{SIGNING_KEY}"
console_key = "{CONSOLE_KEY}"
drain_seconds = 5
slow_spawn_seconds = 0
concurrent_spawn_limit = 0
{fleet_listen}

[hub.profiles.far]
labels = {{ zone = "far" }}

[[hub.agents]]
name = "local"
url = "unix:{self.directory}/agent.sock"
key = "{self.agent.key}"
caller_key = "{AGENT_KEY}"

[[hub.proxies]]
name = "edge"
url = "unix:{self.directory}/control.sock"
key = "{program.KEY}"
caller_key = "{program.KEY}"
""",
            encoding="utf-8",
        )

    async def start(self, number: int, *, failpoint: str = "") -> None:
        """Start a hub and wait until it serves."""
        self.write_config(number)
        environ = {"PATH": os.environ["PATH"], "PYTHONWARNINGS": "error"}
        environ |= {"CARREL_FAILPOINT": failpoint} if failpoint else {}
        with (self.directory / f"log-hub{number}").open("ab") as log:
            self.processes[number] = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "carrel_hub",
                "--config", str(self.directory / f"hub{number}.toml"), "serve",
                env=environ, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        address = f"unix:{self.directory}/internal{number}.sock"
        async with service_client(address) as client:

            async def answers() -> bool:
                assert self.processes[number].returncode is None, self.log(number)
                try:
                    return (await client.get("/internal/v1/health")).status_code == 200
                except httpx.HTTPError:
                    return False

            await self.until(answers)

    async def end(self, number: int, signal_number: signal.Signals = signal.SIGTERM) -> int:
        """End a hub and return its status."""
        process = self.processes.pop(number)
        if process.returncode is None:
            process.send_signal(signal_number)
        return await asyncio.wait_for(process.wait(), SECONDS)

    def log(self, number: int) -> str:
        return (self.directory / f"log-hub{number}").read_text()

    async def until(self, holds: Callable[[], Awaitable[Any]], *, every: float = 0.05) -> Any:
        """Wait for what only other processes can tell of, and return what it is."""
        async with asyncio.timeout(SECONDS):
            while not (found := await holds()):  # noqa: ASYNC110
                await asyncio.sleep(every)
            return found

    @property
    def internal(self) -> str:
        """Where all hubs are called, as agents and proxies have it in their settings."""
        return ",".join(f"unix:{self.directory}/internal{number}.sock" for number in self.numbers)

    async def report(self) -> None:
        """Report as the agent does, to whichever hub answers, until cancelled."""
        headers = service_headers(AGENT_KEY)
        async with service_client(self.internal, headers=headers) as client:
            while True:
                body = self.agent.report().model_dump(mode="json")
                with contextlib.suppress(httpx.HTTPError):
                    await client.post("/internal/v1/agents/local/report", json=body)
                await asyncio.sleep(0.5)

    async def make_admin(self) -> None:
        """Have an administrator and a token."""
        headers = service_headers(CONSOLE_KEY)
        async with service_client(self.internal, headers=headers) as client:
            for path, body in (("link", {"admin": True}), ("token", {})):
                reply = await client.post(
                    f"/internal/v1/console/{path}", json={"user": "root-of-tests", **body}
                )
                assert reply.status_code == 200, reply.text
        self.token = reply.json()["token"]

    def api(self) -> httpx.AsyncClient:
        """Return a client of the REST API, through the proxy."""
        return httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}/hub/api",
            headers={"Authorization": f"token {self.token}"},
            timeout=SECONDS,
            trust_env=False,
        )

    @asynccontextmanager
    async def database(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection to the database that the hubs share."""
        url = make_url(self.url)
        arguments = dict(url.get_dialect()().create_connect_args(url)[1])
        connection = await asyncpg.connect(**arguments)
        try:
            yield connection
        finally:
            await connection.close()

    async def forget_silence(self) -> None:
        """Have it be long ago that those were last heard who are silent now."""
        async with self.database() as connection:
            await connection.execute(
                "UPDATE replicas SET seen_at = seen_at - interval '1 hour'"
                " WHERE seen_at < clock_timestamp() - interval '3 seconds'"
            )

    async def targets(self) -> list[str]:
        """Return the hubs' addresses in the proxy's table."""
        address = f"unix:{self.directory}/control.sock"
        async with service_client(address, headers=service_headers(program.KEY)) as client:
            table = (await client.get("/control/v1/table")).json()
        found = [route["targets"] for route in table["routes"] if route["prefix"] == "/"]
        return [Path(target).name for target in found[0]] if found else []


class Server(Protocol):
    """Where a database can be had: a PostgreSQL, or several that are one to a hub."""

    def database(self) -> AbstractAsyncContextManager[str]: ...


@asynccontextmanager
async def open_fleet(
    directory: Path,
    postgres: Server,
    *,
    replicas: int,
    failpoints: Mapping[int, str] = MappingProxyType({}),
    fleet_ports: Mapping[int, int] = MappingProxyType({}),
    proxy: Mapping[str, Any] = MappingProxyType({}),
) -> AsyncIterator[Fleet]:
    """Run so many hubs; everything is taken away again.

    Args:
        failpoints: Where some of them die, by their numbers.
        fleet_ports: Where hosts on other machines join and report, by their numbers.
        proxy: Further settings of the proxy.
    """
    async with postgres.database() as url:
        database = Database(url)
        await upgrade(database)
        await database.close()
        fleet = Fleet(directory, url, range(replicas), fleet_ports=fleet_ports)
        agent = uvicorn.Server(
            uvicorn.Config(fleet.agent.app, lifespan="off", log_config=None, access_log=False)
        )
        listener = bind_address(UnixAddress(f"{directory}/agent.sock"))
        tasks = TaskOwner()
        serving = tasks.start(agent._serve([listener]), name="agent")
        try:
            async with asyncio.TaskGroup() as group:
                for number in fleet.numbers:
                    group.create_task(fleet.start(number, failpoint=failpoints.get(number, "")))
            settings = {"hub_url": fleet.internal, "drain_seconds": 1, **proxy}
            async with program.carrel(directory, **settings) as running:
                fleet.port = running.port
                tasks.start(fleet.report(), name="reports")
                await fleet.make_admin()

                async def all_there() -> bool:
                    return len(await fleet.targets()) == replicas

                await fleet.until(all_there)
                yield fleet
        finally:
            for number in list(fleet.processes):
                await fleet.end(number, signal.SIGKILL)
            agent.should_exit = True
            await serving
            await tasks.close()
            listener.close()

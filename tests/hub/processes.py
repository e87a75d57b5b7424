"""Real hub processes, with fake neighbours on unix sockets."""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from hub.fakes import FakeAgent, FakeProxy

from carrel_shared.addresses import UnixAddress, bind_address, http_client
from carrel_shared.service_auth import service_headers

CONSOLE_KEY, AGENT_KEY, PROXY_KEY = "c" * 32, "K" * 32, "P" * 32
DEADLINE_SECONDS = 60.0


@dataclass
class Installation:
    """A state directory, the neighbours, and the hub process of the moment."""

    directory: Path
    agent: FakeAgent = field(default_factory=FakeAgent)
    proxy: FakeProxy = field(default_factory=FakeProxy)
    process: asyncio.subprocess.Process | None = None
    token: str = ""

    @property
    def config(self) -> Path:
        return self.directory / "carrel.toml"

    def write_config(self) -> None:
        """Write settings that lead to the neighbours."""
        self.config.write_text(
            f"""
[hub]
listen = "unix:{self.directory}/hub.sock"
internal_listen = "unix:{self.directory}/internal.sock"
state_dir = "{self.directory}/state"
console_key = "{CONSOLE_KEY}"
slow_spawn_seconds = 60

[[hub.agents]]
name = "local"
url = "unix:{self.directory}/agent.sock"
key = "{self.agent.key}"
caller_key = "{AGENT_KEY}"

[[hub.proxies]]
name = "edge"
url = "unix:{self.directory}/proxy.sock"
key = "{self.proxy.key}"
caller_key = "{PROXY_KEY}"
""",
            encoding="utf-8",
        )

    async def run(self, *arguments: str, **environ: str) -> tuple[int, str, str]:
        """Run a command to its end and return status, output, errors."""
        process = await self._spawn(*arguments, **environ)
        out, error = await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
        assert process.returncode is not None
        return process.returncode, out.decode(), error.decode()

    async def _spawn(self, *arguments: str, **environ: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "carrel_hub",
            *arguments,
            env={"PATH": os.environ["PATH"], "PYTHONWARNINGS": "error", **environ},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def start_hub(self, *, failpoint: str = "") -> None:
        """Start the hub and wait until it serves; the agent reports at once."""
        environ = {"CARREL_FAILPOINT": failpoint} if failpoint else {}
        arguments = ("--config", str(self.config), "serve")
        self.process = await self._spawn(*arguments, **environ)
        async with self.internal() as client:
            await self.until(lambda: self._answers(client, may_die=bool(failpoint)))
        try:
            await self.report()
        except httpx.TransportError:
            assert failpoint, "the hub went away without being told to"

    async def _answers(self, client: httpx.AsyncClient, *, may_die: bool) -> bool:
        assert self.process is not None
        if may_die and self.process.returncode == -signal.SIGKILL:
            return True
        if self.process.returncode is not None:
            _, error = await self.process.communicate()
            raise AssertionError(f"the hub ended: {error.decode()}")
        try:
            return (await client.get("/internal/v1/health")).status_code == 200
        except httpx.HTTPError:
            return False

    async def until(self, holds: Callable[[], Any]) -> Any:
        """Wait for a condition, which only another process can tell of, and return what it is."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not (found := await holds()):  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0.02)
            return found

    async def ended(self) -> int:
        """Wait for the hub's end and return its status."""
        assert self.process is not None
        await asyncio.wait_for(self.process.communicate(), DEADLINE_SECONDS)
        assert self.process.returncode is not None
        return self.process.returncode

    async def stop_hub(self, number: int = signal.SIGTERM) -> int:
        """End the hub."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(number)
        return await self.ended()

    def internal(self, key: str = CONSOLE_KEY) -> httpx.AsyncClient:
        """Return a client of the internal API."""
        address = UnixAddress(f"{self.directory}/internal.sock")
        return http_client(address, headers=service_headers(key))

    def public(self) -> httpx.AsyncClient:
        """Return a client of the REST API with the token of the user."""
        address = UnixAddress(f"{self.directory}/hub.sock")
        return http_client(address, headers={"Authorization": f"token {self.token}"})

    async def report(self) -> None:
        """Have the agent report."""
        async with self.internal(AGENT_KEY) as client:
            reply = await client.post(
                "/internal/v1/agents/local/report",
                json=self.agent.report().model_dump(mode="json"),
            )
        assert reply.status_code == 200, reply.text

    async def make_user(self) -> None:
        """Have a user `alice`, and a token for her."""
        async with self.internal() as client:
            await client.post(
                "/internal/v1/console/link", json={"user": "alice", "account": "alice"}
            )
            reply = await client.post("/internal/v1/console/token", json={"user": "alice"})
        self.token = reply.json()["token"]

    async def server(self) -> dict[str, Any]:
        """Return alice's server as the API tells it."""
        async with self.public() as client:
            reply = await client.get("/hub/api/users/alice/server")
        found: dict[str, Any] = reply.json()
        return found

    async def wait_for_state(self, state: str) -> None:
        """Wait until alice's server is in that state."""

        async def there() -> bool:
            return bool((await self.server())["state"]["state"] == state)

        await self.until(there)


@asynccontextmanager
async def installation() -> AsyncIterator[Installation]:
    """Make an upgraded installation without a hub process, and take everything away again."""
    directory = Path(tempfile.mkdtemp(prefix="chub"))
    made = Installation(directory)
    made.write_config()
    servers = [
        uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None, access_log=False))
        for app in (made.agent.app, made.proxy.app)
    ]
    sockets = [bind_address(UnixAddress(f"{directory}/{name}.sock")) for name in ("agent", "proxy")]
    try:
        async with asyncio.TaskGroup() as group:
            for server, listener in zip(servers, sockets, strict=True):
                group.create_task(server._serve([listener]))
            try:
                status, _, error = await made.run("--config", str(made.config), "db", "upgrade")
                assert status == 0, error
                yield made
            finally:
                if made.process is not None and made.process.returncode is None:
                    made.process.kill()
                    await made.ended()
                for server in servers:
                    server.should_exit = True
    finally:
        for listener in sockets:
            listener.close()
        shutil.rmtree(directory)

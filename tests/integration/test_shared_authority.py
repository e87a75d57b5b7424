"""A host that joined one hub is every hub's, though hubs share nothing but their database."""

import asyncio
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import uvicorn
from hub.fakes import FakeAgent
from integration.replicas import SECONDS, Fleet, open_fleet

from carrel_agent.fleet.credentials import store
from carrel_agent.fleet.exchange import exchange_token, split_token
from carrel_shared.addresses import TcpAddress, bind_address
from carrel_shared.clock import SystemClock
from carrel_shared.fleet import (
    HUB_NAME,
    FleetFiles,
    RenewedContext,
    fleet_client,
    listener_options,
)
from carrel_shared.fleet_joining import learn_authority
from carrel_shared.fleet_keys import new_key_pair
from carrel_shared.identity import boot_id
from carrel_shared.service_auth import service_headers
from carrel_shared.tasks import TaskOwner
from carrel_shared.wire.hosts import JoinReply
from support.ports import free_port
from support.postgres import Postgres

pytestmark = pytest.mark.timeout(300)


@dataclass
class Machine:
    """Another machine: its credentials, and an agent that speaks TLS by them."""

    credentials: JoinReply
    files: FleetFiles
    agent: FakeAgent

    async def report(self, port: int) -> httpx.Response:
        """Report to one hub."""
        report = self.agent.report().model_copy(
            update={"boot_id": boot_id(), "labels": {"zone": "far"}, "at": SystemClock().now()}
        )
        address = TcpAddress("127.0.0.1", port)
        async with fleet_client(self.files, [address], HUB_NAME) as client:
            return await client.post(
                "/internal/v1/agents/rack-1/report",
                json=report.model_dump(mode="json"),
                headers=service_headers(self.credentials.agent_key),
            )


async def join(fleet: Fleet, port: int, agent_port: int) -> JoinReply:
    """Join as `carrel-agent join` does, and keep the credentials."""
    async with fleet.api() as client:
        reply = await client.post("/hosts/rack-1/token")
        assert reply.status_code == 201, reply.text
        secret, print_ = split_token(reply.json()["token"])
    base, key = f"https://127.0.0.1:{port}", new_key_pair()
    authority = await asyncio.to_thread(learn_authority, base, print_)
    given = await asyncio.to_thread(
        exchange_token, base, authority, token=secret, request=key.request,
        at=SystemClock().now(), address="127.0.0.1", ports=(agent_port, free_port()),
    )  # fmt: skip
    store(host_files(fleet), key, given.certificate, given.authority, None)
    return given


def host_files(fleet: Fleet) -> FleetFiles:
    directory = fleet.directory / "rack-1"
    return FleetFiles(directory / "ca.pem", directory / "host.pem", directory / "host.pem")


@asynccontextmanager
async def machine(fleet: Fleet, port: int) -> AsyncIterator[Machine]:
    """Have a machine that has joined the hub at this port."""
    agent_port = free_port()
    given = await join(fleet, port, agent_port)
    files, agent = host_files(fleet), FakeAgent(name="rack-1", key=given.hub_key)
    options = listener_options(RenewedContext(files))
    server = uvicorn.Server(
        uvicorn.Config(agent.app, lifespan="off", log_config=None, access_log=False, **options)
    )
    listening, tasks = bind_address(TcpAddress("127.0.0.1", agent_port)), TaskOwner()
    serving = tasks.start(server._serve([listening]), name="rack-1")
    try:
        yield Machine(given, files, agent)
    finally:
        server.should_exit = True
        await serving
        await tasks.close()
        listening.close()


async def test_a_host_joins_one_hub_and_is_run_by_another(
    short_dir: Path, postgres_server: Postgres
) -> None:
    ports = {number: free_port() for number in range(2)}
    mine = short_dir / "state0/fleet"
    edge = {"fleet_ca": "ca.pem", "fleet_cert": "edge.pem", "fleet_key": "edge.pem"}
    settings = {name: str(mine / file) for name, file in edge.items()}
    async with (
        open_fleet(
            short_dir, postgres_server, replicas=2, fleet_ports=ports, proxy=settings
        ) as fleet,
        machine(fleet, ports[0]) as rack,
    ):
        states = [short_dir / f"state{number}/fleet" for number in ports]
        assert {(one / "ca.pem").read_text() for one in states} == {rack.credentials.authority}
        assert (states[0] / "hub.pem").read_bytes() != (states[1] / "hub.pem").read_bytes()
        assert not any((one / "ca.key").exists() for one in states)
        for port in ports.values():
            assert (await rack.report(port)).status_code == 200
        await fleet.end(0, signal.SIGKILL)
        async with fleet.api() as client:
            await client.post("/users/alice")
            started = await client.post("/users/alice/server", json={"profile": "far"})
            assert started.status_code in (201, 202), started.text

            async def runs() -> bool:
                assert (await rack.report(ports[1])).status_code == 200
                found = (await client.get("/users/alice")).json()["servers"][""]
                return bool(found["ready"])

            await fleet.until(runs)
        assert [spec.user for spec in rack.agent.specs] == ["alice"], "called by TLS, with its key"
        await fleet.end(1)
        shutil.rmtree(short_dir / "state1")
        await fleet.start(1)
        assert (await rack.report(ports[1])).status_code == 200, "a lost directory costs nothing"


async def test_a_hub_with_another_signing_key_says_what_to_do(
    short_dir: Path, postgres_server: Postgres
) -> None:
    ports = {0: free_port()}
    async with open_fleet(short_dir, postgres_server, replicas=1, fleet_ports=ports) as fleet:
        assert await fleet.end(0) == 0
        shutil.rmtree(short_dir / "state0")
        config = short_dir / "hub0.toml"
        config.write_text(config.read_text().replace("s" * 32, "t" * 32))

        async def run(*words: str) -> tuple[int | None, str]:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "carrel_hub", "--config", str(config), *words,
                stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
            said = (await asyncio.wait_for(process.communicate(), SECONDS))[1]
            return process.returncode, said.decode()

        await fleet.forget_silence()
        status, said = await run("serve")
        assert (status, "Traceback" in said) == (78, False), said
        assert "say in hub.former_signing_key what it was before" in said
        status, said = await run("db", "forget-fleet")
        assert status == 0, said
        assert "every host has to join anew" in said

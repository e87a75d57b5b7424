"""A hub that other machines can join, and machines that try."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hub.world import World, open_world
from starlette.types import ASGIApp, Receive, Scope, Send

from carrel_hub.app import create_fleet_app
from carrel_hub.hosts.joining import issue_join_token
from carrel_shared.fleet import host_identity
from carrel_shared.service_auth import service_headers


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with open_world(fleet_listen="0.0.0.0:8444") as made:
        yield made


def signing_request() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    asked = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return asked.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


@dataclass
class Machine:
    """A machine at the hub's door, with whatever credentials it was given."""

    world: World
    app: ASGIApp
    boot_id: str = "boot-1"
    place: str = "1:1"
    id: str = "machine-1"
    credentials: dict[str, Any] = field(default_factory=dict)
    instance: str = "one"
    sequence: int = 0

    def client(self, shows: str | None = None) -> httpx.AsyncClient:
        """Return a client, as whose the listener would have its calls by their certificate.

        Args:
            shows: Another certificate's identity.
        """
        name = self.credentials.get("name", "")
        identity = (host_identity(name) if name else "") if shows is None else shows

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            scope["state"] = {"identity": identity}
            await self.app(scope, receive, send)

        transport = httpx.ASGITransport(app=app)
        return httpx.AsyncClient(transport=transport, base_url="https://hub")

    async def call(
        self, method: str, path: str, body: Any = None, *, shows: str | None = None
    ) -> httpx.Response:
        """Call with the credentials there are; `shows` as for `client`."""
        headers = service_headers(self.credentials.get("agent_key", "x"))
        async with self.client(shows) as client:
            return await client.request(method, path, json=body, headers=headers)

    async def join(self, token: str, **changes: Any) -> httpx.Response:
        """Exchange a token, and keep what it brings."""
        body = {
            "token": token.partition(".")[0],
            "request": signing_request(),
            "boot_id": self.boot_id,
            "at": self.world.clock.now().isoformat(),
            "address": "192.0.2.7",
            "agent_port": 8445,
            "relay_port": 8446,
            **changes,
        }
        reply = await self.call("POST", "/internal/v1/fleet/join", body)
        if reply.status_code == 200:
            self.credentials = reply.json()
        return reply

    async def report(self, *, as_host: str | None = None, **changes: Any) -> httpx.Response:
        """Report that nothing runs, or what `changes` say."""
        self.sequence += 1
        body = {
            "instance": self.instance,
            "boot_id": self.boot_id,
            "place": self.place,
            "machine": self.id,
            "sequence": self.sequence,
            "version": "0.1.0",
            "accounts": "any",
            "at": self.world.clock.now().isoformat(),
            "capacity": {
                "cores": 4,
                "memory_total": 8 << 30,
                "memory_available": 6 << 30,
                "load_1m": 0.5,
            },
            **changes,
        }
        name = as_host or self.credentials["name"]
        return await self.call("POST", f"/internal/v1/agents/{name}/report", body)


NewMachine = Callable[..., Machine]
Token = Callable[[str], Awaitable[str]]


@pytest.fixture
def machine(world: World) -> NewMachine:
    app = create_fleet_app(world.hub)
    return lambda **more: Machine(world, app, **more)


@pytest.fixture
def token(world: World) -> Token:
    async def make(name: str) -> str:
        async with world.hub.database.write() as session:
            return (await issue_join_token(session, world.hub, name, actor="console")).text

    return make

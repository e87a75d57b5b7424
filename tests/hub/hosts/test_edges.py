"""Proxies of the settings on other machines: they get the certificate that relays know them by."""

import httpx
import pytest
from cryptography import x509
from hub.hosts.conftest import signing_request
from hub.world import World
from sqlmodel import select

from carrel_hub.app import create_fleet_app
from carrel_hub.db.models import Event
from carrel_shared.fleet import EDGE_IDENTITY
from carrel_shared.service_auth import service_headers

KEY = "P" * 32
"""What the proxy `edge` shows the hub."""


async def ask(world: World, name: str, key: str, request: str) -> httpx.Response:
    transport = httpx.ASGITransport(app=create_fleet_app(world.hub))
    async with httpx.AsyncClient(transport=transport, base_url="https://hub") as client:
        path = f"/internal/v1/fleet/edges/{name}/certificate"
        return await client.post(path, json={"request": request}, headers=service_headers(key))


async def test_a_proxy_of_the_settings_gets_an_edges_certificate_with_its_key(
    world: World,
) -> None:
    reply = await ask(world, "edge", KEY, signing_request())
    assert reply.status_code == 200
    given = reply.json()
    certificate = x509.load_pem_x509_certificate(given["certificate"].encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [EDGE_IDENTITY]
    assert names.get_values_for_type(x509.DNSName) == [], "it is nobody that is called"
    authority = x509.load_pem_x509_certificate(given["authority"].encode())
    certificate.verify_directly_issued_by(authority)
    async with world.hub.database.read() as session:
        [event] = (
            await session.exec(select(Event).where(Event.kind == "proxy.certificate_issued"))
        ).all()
    assert event.actor == "proxy:edge"


@pytest.mark.parametrize(
    ("name", "key", "request_", "status"),
    [
        ("edge", "x" * 32, None, 401),
        ("edge", "p" * 32, None, 401),  # what the hub shows the proxy
        ("edge", "K" * 32, None, 401),  # an agent's
        ("other", KEY, None, 403),
        ("edge", KEY, "nonsense", 400),
        ("edge", KEY, "x" * 9000, 400),
    ],
)
async def test_nobody_else_gets_one(
    world: World, name: str, key: str, request_: str | None, status: int
) -> None:
    assert (await ask(world, name, key, request_ or signing_request())).status_code == status

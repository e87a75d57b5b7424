"""A host's certificate is renewed in time, with a new key, and used without a restart."""

from datetime import timedelta
from pathlib import Path

import httpx

from carrel_agent.fleet.credentials import store
from carrel_agent.fleet.renewal import Renewal
from carrel_hub.hosts.authority import Authority, new_authority
from carrel_shared.clock import ManualClock, SystemClock
from carrel_shared.fleet import FleetFiles, RenewedContext
from carrel_shared.fleet_keys import new_key_pair, past_half_life
from carrel_shared.wire.hosts import RenewReply, RenewRequest


async def test_a_certificate_is_renewed_at_half_its_life(tmp_path: Path) -> None:
    began = SystemClock().now()
    authority = Authority(new_authority(began))
    pair = tmp_path / "fleet/host.pem"
    files = FleetFiles(tmp_path / "fleet/ca.pem", pair, pair)
    key = new_key_pair()
    first = authority.sign_host(key.request, "rack-1", began)
    store(files, key, first, authority.certificate, None)
    clock = ManualClock(began)
    paths: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.path)
        asked = RenewRequest.model_validate_json(request.content)
        certificate = authority.sign_host(asked.request, "rack-1", clock.now())
        reply = RenewReply(certificate=certificate, authority=authority.certificate)
        return httpx.Response(200, text=reply.model_dump_json())

    before = pair.read_bytes()
    async with httpx.AsyncClient(
        transport=httpx.MockTransport(answer), base_url="https://hub"
    ) as hub:
        listening = RenewedContext(files)
        renewal = Renewal(
            files,
            name="rack-1",
            hub=hub,
            key="k" * 32,
            listening=listening,
            group=None,
            clock=clock,
        )
        assert not past_half_life(pair, clock.now())
        clock.advance(timedelta(days=3.6).total_seconds())
        assert past_half_life(pair, clock.now())
        await renewal.renew()
    assert paths == ["/internal/v1/agents/rack-1/certificate"]
    assert not past_half_life(pair, clock.now())
    assert before.split(b"-----BEGIN PRIVATE KEY")[1] not in pair.read_bytes(), "a new key"
    files.server_context()

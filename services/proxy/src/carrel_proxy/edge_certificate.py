"""The certificate of an edge on another machine than the hub: asked for there, renewed in time."""

import asyncio
from typing import NoReturn

import structlog

from carrel_proxy.settings import ProxySettings
from carrel_shared.backoff import backoff_seconds
from carrel_shared.clock import Clock
from carrel_shared.files import write_atomically
from carrel_shared.fleet import FleetFiles
from carrel_shared.service_auth import service_headers
from carrel_shared.wire.hosts import RenewReply, RenewRequest

log = structlog.get_logger(__name__)

LOOK_SECONDS = 3600.0
"""How often it is looked whether it is time."""


class EdgeCertificate:
    """Keeps what relays know this edge by. Its key is made here and never leaves.

    Args:
        settings: With `fleet_hub`.
    """

    def __init__(self, settings: ProxySettings, files: FleetFiles, clock: Clock) -> None:
        self._settings = settings
        self._files = files
        self._clock = clock

    async def run(self) -> NoReturn:
        """Have one from now on; the hub may be away for half of its life."""
        failures = 0
        while True:
            try:
                if await asyncio.to_thread(self._is_due):
                    await asyncio.to_thread(self.obtain)
                    log.info("certificate_issued", file=str(self._files.cert))
                failures = 0
            except Exception as error:
                failures += 1
                log.error("certificate_not_issued", reason=str(error))
            await asyncio.sleep(backoff_seconds(failures) if failures else LOOK_SECONDS)

    def _is_due(self) -> bool:
        from carrel_shared.fleet_keys import past_half_life

        if not self._files.are_there():
            return True
        return past_half_life(self._files.cert, self._clock.now())

    def obtain(self) -> None:
        """Ask for one, and write it down.

        Raises:
            JoinError: The hub is another one, refuses, or does not answer.
            OSError: The files cannot be written.
        """
        from carrel_shared.fleet_joining import ask, known_hub, learn_authority
        from carrel_shared.fleet_keys import new_key_pair

        settings, files = self._settings, self._files
        assert settings.fleet_hub is not None  # noqa: S101 - why there is one of these
        assert settings.hub_key is not None  # noqa: S101 - an edge has it
        address, _, fingerprint = settings.fleet_hub.partition("#")
        base = f"https://{address}"
        authority, key = learn_authority(base, fingerprint), new_key_pair()
        path = f"/internal/v1/fleet/edges/{settings.name}/certificate"
        body = RenewRequest(request=key.request).model_dump_json()
        headers = service_headers(settings.hub_key.get_secret_value())
        with known_hub(base, authority) as client:
            signed = RenewReply.model_validate_json(
                ask(client, "POST", path, body, headers).content
            )
        files.cert.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(files.ca, signed.authority.encode(), mode=0o600)
        write_atomically(files.cert, signed.certificate.encode() + key.private, mode=0o600)

"""A certificate that is renewed at half its life, with a new key each time."""

import asyncio
import os
from typing import TYPE_CHECKING

import structlog

from carrel_agent.fleet.credentials import store
from carrel_shared.clock import Clock
from carrel_shared.fleet import FleetFiles, RenewedContext
from carrel_shared.fleet_keys import new_key_pair, past_half_life
from carrel_shared.service_auth import service_headers
from carrel_shared.wire.hosts import RenewReply, RenewRequest

if TYPE_CHECKING:
    import httpx

log = structlog.get_logger(__name__)

LOOK_SECONDS = 3600.0
RETRY_SECONDS = 60.0


class Renewal:
    """Keeps the host's certificate good.

    Args:
        hub: Client of the hub.
        key: What the agent shows the hub.
        listening: The agent's own listener, which takes the new one up.
    """

    def __init__(
        self,
        files: FleetFiles,
        *,
        name: str,
        hub: "httpx.AsyncClient",
        key: str,
        listening: RenewedContext,
        group: int | None,
        clock: Clock,
    ) -> None:
        self._files, self._name, self._hub, self._key = files, name, hub, key
        self._listening, self._group, self._clock = listening, group, clock

    async def run(self) -> None:
        """Look now and then, for as long as the agent runs."""
        while True:
            wait = LOOK_SECONDS
            try:
                if past_half_life(self._files.cert, self._clock.now()):
                    await self.renew()
            except Exception as error:  # whatever it is, the old one is still good for days
                log.error("certificate_not_renewed", reason=str(error) or type(error).__name__)
                wait = RETRY_SECONDS
            await asyncio.sleep(wait)

    async def renew(self) -> None:
        """Have a new key signed, and use it from the next connection on.

        Raises:
            httpx.HTTPError: The hub does not answer or refuses.
            OSError: The files cannot be written.
        """
        key = new_key_pair()
        reply = await self._hub.post(
            f"/internal/v1/agents/{self._name}/certificate",
            content=RenewRequest(request=key.request).model_dump_json(),
            headers={**service_headers(self._key), "Content-Type": "application/json"},
        )
        reply.raise_for_status()
        signed = RenewReply.model_validate_json(reply.content)
        group = self._group if os.geteuid() == 0 else None
        store(self._files, key, signed.certificate, signed.authority, group)
        self._listening.renew()
        log.info("certificate_renewed", file=str(self._files.cert))

"""Calls from this proxy to the hub."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TypeVar

import httpx
import structlog
from pydantic import BaseModel, ValidationError

from carrel_proxy.errors import CodeRefusedError, HubAwayError
from carrel_shared.failover import ONCE, service_client
from carrel_shared.service_auth import service_headers
from carrel_shared.wire.access import (
    ActivityReport,
    CodeRedemption,
    RedeemedToken,
    ResyncRequest,
    Verdict,
    VerdictRequest,
)
from carrel_shared.wire.routes import TableStatus

log = structlog.get_logger(__name__)

CALL_SECONDS = 5.0
REACH_SECONDS = 2.0
"""How long the hub may take to say that it is there, when a browser is about to be sent to it."""
REACHED_SECONDS = 1.0
"""How long that counts."""
MOST_AT_ONCE = 32
"""Calls under way at most: whatever clients send, the hub is not flooded through its proxy."""
SLOT_SECONDS = 2.0
"""How long a call may wait until one of those is over."""

M = TypeVar("M", bound=BaseModel)


class Hub:
    """The hub, as a proxy sees it.

    Args:
        url: Its internal address; several, with commas between them, where it runs several times.
        key: What this proxy shows it.
        name: This proxy's name.
        client: Takes the place of a connection to `url` in tests.
    """

    def __init__(
        self, url: str, key: str, name: str, client: httpx.AsyncClient | None = None
    ) -> None:
        self._client = client or service_client(url, timeout_seconds=CALL_SECONDS)
        self._key = key
        self._name = name
        self._slots = asyncio.Semaphore(MOST_AT_ONCE)
        self._reached_at = float("-inf")

    async def close(self) -> None:
        await self._client.aclose()

    async def check_reachable(self) -> None:
        """Find out whether the hub is there.

        Raises:
            HubAwayError: If it is not.
        """
        loop = asyncio.get_running_loop()
        if loop.time() < self._reached_at + REACHED_SECONDS:
            return
        try:
            async with self._slot():
                reply = await self._client.get("/internal/v1/health", timeout=REACH_SECONDS)
        except httpx.HTTPError as error:
            raise HubAwayError(f"{type(error).__name__}: {error}") from error
        if not reply.is_success:
            raise HubAwayError(f"the hub is not well: it answered {reply.status_code}")
        self._reached_at = loop.time()

    async def verdict(self, token_hash: str, server_id: str) -> Verdict:
        """Ask whether a token opens a server.

        Raises:
            HubAwayError: If there is no answer that could be used.
        """
        body = VerdictRequest(token_hash=token_hash, server_id=server_id)
        reply = await self._post("/internal/v1/access/verdict", body)
        return _named(self._read(Verdict, reply))

    async def redeem(self, redemption: CodeRedemption) -> RedeemedToken:
        """Exchange a code for a token.

        Raises:
            CodeRefusedError: If the hub does not take it.
            HubAwayError: If there is no answer that could be used.
        """
        path = "/internal/v1/access/redeem"
        reply = await self._post(path, redemption, refusals=(400, 403), once=True)
        if reply.status_code != 200:
            raise CodeRefusedError("the hub did not redeem the code")
        token = self._read(RedeemedToken, reply)
        _named(token.verdict)
        return token

    async def resync(self, status: TableStatus, *, gap: bool) -> None:
        """Ask to be pushed to.

        Raises:
            HubAwayError: If the hub did not take the request.
        """
        body = ResyncRequest(
            epoch=status.epoch, number=status.number, reason="gap" if gap else "started"
        )
        await self._post(f"/internal/v1/proxies/{self._name}/resync", body)

    async def report_activity(self, servers: Mapping[str, datetime]) -> None:
        """Say when each server was last used.

        Raises:
            HubAwayError: If the hub did not take the report.
        """
        body = ActivityReport(servers=dict(servers))
        await self._post(f"/internal/v1/proxies/{self._name}/activity", body)

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        """Wait for a turn to call; not for long, since others may be waiting for a hub that hangs.

        Raises:
            HubAwayError: If it does not come.
        """
        try:
            async with asyncio.timeout(SLOT_SECONDS):
                await self._slots.acquire()
        except TimeoutError:
            raise HubAwayError("too many calls to the hub wait for an answer") from None
        try:
            yield
        finally:
            self._slots.release()

    async def _post(
        self, path: str, body: BaseModel, refusals: tuple[int, ...] = (), *, once: bool = False
    ) -> httpx.Response:
        headers = service_headers(self._key) | {"Content-Type": "application/json"}
        try:
            async with self._slot():
                reply = await self._client.post(
                    path,
                    content=body.model_dump_json(),
                    headers=headers,
                    extensions={ONCE: True} if once else None,
                )
        except httpx.HTTPError as error:
            raise HubAwayError(f"{type(error).__name__}: {error}") from error
        if not reply.is_success and reply.status_code not in refusals:
            if reply.status_code < 500:
                # Not an outage: keys, names or versions do not fit, and only people can mend that.
                log.error("hub_refuses_proxy", path=path, status=reply.status_code)
            raise HubAwayError(f"the hub answered {reply.status_code} to {path}")
        return reply

    def _read(self, model: type[M], reply: httpx.Response) -> M:
        try:
            return model.model_validate_json(reply.content)
        except ValidationError as error:
            raise HubAwayError("the hub answered something this proxy cannot read") from error


def _named(verdict: Verdict) -> Verdict:
    """Return a verdict that can be followed: whoever may pass has a name for the server."""
    if verdict.allow and verdict.visitor is None:
        raise HubAwayError("the hub lets somebody pass and does not say who it is")
    return verdict

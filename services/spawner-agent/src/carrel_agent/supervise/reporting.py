"""Telling the hub: everything, when the agent starts, on each change, and now and then."""

import asyncio
import contextlib
import secrets
from typing import TYPE_CHECKING

import structlog
from pydantic import ValidationError

from carrel_agent import __version__
from carrel_agent.supervise.capacity import read_capacity
from carrel_agent.supervise.supervisor import Supervisor
from carrel_shared.backoff import backoff_seconds
from carrel_shared.identity import boot_id
from carrel_shared.service_auth import new_request_id, service_headers
from carrel_shared.wire.agents import AgentReport, AgentReportReply, AgentSnapshot
from carrel_shared.wire.servers import ServerReport

if TYPE_CHECKING:
    import httpx

log = structlog.get_logger(__name__)

LONGEST_WAIT = 5.0
HEARTBEAT_SECONDS = 10.0
PROGRESS_SECONDS = 0.4
"""How long the hub may wait to hear how a start goes on; most are ready before."""
QUIET_FAILURES = 3
"""The hub may be starting or restarting: only then is its absence worth a line."""


class HubRefusedError(Exception):
    """The hub answered with an error."""


class Reporter:
    """Sends reports, one at a time; changes meanwhile go into the next.

    Args:
        name: The agent's, as the hub knows it.
        accounts: `any`, or the one account this agent can run.
        hub: Client of the hub's internal address.
        key: What the agent shows the hub.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        *,
        name: str,
        accounts: str,
        hub: "httpx.AsyncClient",
        key: str,
    ) -> None:
        self._supervisor = supervisor
        self._name = name
        self._accounts = accounts
        self._hub = hub
        self._key = key
        self._instance = secrets.token_hex(8)
        self._sequence = 0
        self._changed, self._urgent = asyncio.Event(), asyncio.Event()
        supervisor.on_change(self._note)

    def snapshot(self) -> AgentSnapshot:
        """Return all servers, for whoever asks instead of waiting to be told."""
        return AgentSnapshot(
            instance=self._instance, boot_id=boot_id(), servers=self._supervisor.reports()
        )

    async def run(self) -> None:
        """Report for as long as the agent runs."""
        heartbeat, failures = HEARTBEAT_SECONDS, 0
        while True:
            self._changed.clear()
            self._urgent.clear()
            servers = self._supervisor.reports()
            try:
                reply = await self._send(servers)
            except (HubRefusedError, OSError) as error:
                failures += 1
                if failures == QUIET_FAILURES:
                    log.warning("hub_unreachable", reason=str(error))
                await asyncio.sleep(backoff_seconds(failures - 1, longest=LONGEST_WAIT))
                continue
            if failures >= QUIET_FAILURES:
                log.info("hub_reached", after_failures=failures)
            heartbeat, failures = reply.heartbeat_seconds, 0
            await self._supervisor.forget_reported(servers, reply.forget)
            await _wait(self._changed, heartbeat)
            if self._changed.is_set():
                await _wait(self._urgent, PROGRESS_SECONDS)

    def _note(self, at_once: bool) -> None:
        self._changed.set()
        if at_once:
            self._urgent.set()

    async def _send(self, servers: list[ServerReport]) -> AgentReportReply:
        import httpx

        self._sequence += 1
        report = AgentReport(
            instance=self._instance,
            boot_id=boot_id(),
            sequence=self._sequence,
            version=__version__,
            accounts=self._accounts,
            capacity=read_capacity(),
            servers=servers,
        )
        try:
            reply = await self._hub.post(
                f"/internal/v1/agents/{self._name}/report",
                content=report.model_dump_json(),
                headers={
                    **service_headers(self._key, new_request_id()),
                    "Content-Type": "application/json",
                },
            )
            if reply.status_code != 200:
                raise HubRefusedError(f"the hub answered {reply.status_code}: {reply.text[:300]}")
            return AgentReportReply.model_validate_json(reply.content)
        except httpx.HTTPError as error:
            raise OSError(str(error) or type(error).__name__) from error
        except ValidationError as error:
            raise HubRefusedError("the hub's answer is not what was agreed on") from error


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()

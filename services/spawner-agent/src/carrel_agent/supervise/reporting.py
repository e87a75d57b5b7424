"""Telling the hub: everything, when the agent starts, on each change, and now and then."""

import asyncio
import contextlib
import secrets
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from pydantic import ValidationError

from carrel_agent import __version__
from carrel_agent.fleet.relay import RelayRoutes
from carrel_agent.supervise.capacity import read_capacity
from carrel_agent.supervise.supervisor import Supervisor
from carrel_shared.backoff import backoff_seconds
from carrel_shared.calls import Answer, Client, http_errors
from carrel_shared.clock import SystemClock
from carrel_shared.identity import boot_id, machine
from carrel_shared.service_auth import new_request_id, service_headers
from carrel_shared.wire.agents import (
    AgentReport,
    AgentReportReply,
    AgentSnapshot,
    Capacity,
    Running,
)
from carrel_shared.wire.errors import ErrorBody
from carrel_shared.wire.servers import ServerReport, ServerState

log = structlog.get_logger(__name__)

LONGEST_WAIT = 5.0
HEARTBEAT_SECONDS = 10.0
PROGRESS_SECONDS = 0.4
"""How long the hub may wait to hear how a start goes on; most are ready before."""
GATHER_SECONDS = 0.05
"""Reports follow each other no faster, so that many changes at once are few reports."""
CAPACITY_SECONDS = 2.0
"""How old what is said of the host's capacity may be."""
FAULT_SECONDS = 5.0
QUIET_FAILURES = 3
"""The hub may be starting or restarting: only then is its absence worth a line."""


class HubRefusedError(Exception):
    """The hub answered with an error."""


class NotThisHostError(HubRefusedError):
    """The hub does not take this agent for the host it says it is."""


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What stays the same of this host while the agent runs.

    Attributes:
        name: The host's, as the hub knows it.
        accounts: `any`, or the one account this agent can run.
        homes: What people's homes lie on, where several hosts share them.
    """

    name: str
    accounts: str
    state_dir: Path
    labels: dict[str, str] = field(default_factory=dict)
    homes: str = ""


class Reporter:
    """Sends reports, one at a time; changes meanwhile go into the next.

    Each has the whole list of what runs, and whole reports of those servers alone of which
    something is new since the last one that the hub answered.

    Args:
        facts: What is told of the host.
        hub: Client of the hub's internal address.
        key: What the agent shows the hub.
        relay: Told first; None where proxies reach servers directly.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        *,
        facts: HostFacts,
        hub: Client,
        key: str,
        relay: RelayRoutes | None = None,
    ) -> None:
        self._supervisor = supervisor
        self._facts = facts
        self._relay = relay
        self._hub = hub
        self._key = key
        self._instance = secrets.token_hex(8)
        self._sequence = 0
        self._answered: dict[str, ServerReport] = {}
        self._trouble = ""
        self._known: tuple[float, Capacity] | None = None
        self._changed, self._urgent = asyncio.Event(), asyncio.Event()
        supervisor.on_change(self._note)

    @property
    def has_relay(self) -> bool:
        """Whether proxies reach the servers here by a relay."""
        return self._relay is not None

    def note_told(self, report: ServerReport) -> None:
        """Take note of what the hub was answered; what it did not get it asks for again."""
        if report.state == ServerState.READY:
            self._answered[report.server_id] = report

    def snapshot(self) -> AgentSnapshot:
        """Return all servers, for whoever asks instead of waiting to be told."""
        return AgentSnapshot(
            instance=self._instance, boot_id=boot_id(), servers=self._supervisor.reports()
        )

    async def run(self) -> None:
        """Report for as long as the agent runs.

        A host that is silent is lost to the hub, so a fault that nobody expected is not its end.
        """
        while True:
            try:
                await self._report()
            except Exception as error:
                log.error("report_not_made", exc_info=error)
                self._answered = {}
            await asyncio.sleep(FAULT_SECONDS)

    async def _report(self) -> None:
        heartbeat, failures = HEARTBEAT_SECONDS, 0
        while True:
            self._changed.clear()
            self._urgent.clear()
            servers = await self._reports()
            began = asyncio.get_running_loop().time()
            try:
                reply = await self._send(servers)
            except (HubRefusedError, OSError) as error:
                failures += 1
                if failures == QUIET_FAILURES or (
                    isinstance(error, NotThisHostError) and str(error) != self._trouble
                ):
                    log.warning("hub_unreachable", reason=str(error))
                self._note_trouble(str(error) if isinstance(error, NotThisHostError) else "")
                self._answered = {}
                await asyncio.sleep(backoff_seconds(failures - 1, longest=LONGEST_WAIT))
                continue
            if failures >= QUIET_FAILURES:
                log.info("hub_reached", after_failures=failures)
            heartbeat, failures = reply.heartbeat_seconds, 0
            self._note_trouble(reply.trouble)
            self._supervisor.prefer(reply.preload)
            self._answered = {
                one.server_id: one for one in servers if one.server_id not in reply.repeat
            }
            await self._supervisor.forget_reported(servers, reply.forget)
            if reply.repeat:
                continue
            due = asyncio.get_running_loop().time() + heartbeat
            while await self._changes_without_news(due):
                self._changed.clear()
            # Many ends at once are one report, or a few.
            await asyncio.sleep(began + GATHER_SECONDS - asyncio.get_running_loop().time())

    async def _changes_without_news(self, due: float) -> bool:
        """Wait for a change or until `due`; return whether a change came that the hub knows of."""
        await _wait(self._changed, due - asyncio.get_running_loop().time())
        if not self._changed.is_set():
            return False
        await _wait(self._urgent, PROGRESS_SECONDS)
        if self._urgent.is_set() or self._relay is not None:
            return False
        return all(self._is_answered(one) for one in self._supervisor.reports())

    def _is_answered(self, report: ServerReport) -> bool:
        answered = self._answered.get(report.server_id)
        return answered is report or answered == report

    def _note(self, at_once: bool) -> None:
        self._changed.set()
        if at_once:
            self._urgent.set()

    async def _reports(self) -> list[ServerReport]:
        reports = self._supervisor.reports()
        if self._relay is None:
            return reports
        return await self._relay.follow(reports, self._supervisor.prefixes())

    def _note_trouble(self, trouble: str) -> None:
        if trouble and trouble != self._trouble:
            log.error("host_in_trouble", reason=trouble)
        self._trouble = trouble

    def _capacity(self) -> Capacity:
        """Return what the host has, as of lately."""
        now = asyncio.get_running_loop().time()
        if self._known is None or now - self._known[0] >= CAPACITY_SECONDS:
            self._known = (now, read_capacity(self._facts.state_dir))
        return self._known[1]

    async def _send(self, servers: list[ServerReport]) -> AgentReportReply:
        self._sequence += 1
        facts = self._facts
        news = [one for one in servers if not self._is_answered(one)]
        rest = [one for one in servers if self._is_answered(one)]
        report = AgentReport(
            instance=self._instance,
            boot_id=boot_id(),
            place=place_of(facts.state_dir),
            machine=machine(),
            sequence=self._sequence,
            version=__version__,
            accounts=facts.accounts,
            capacity=self._capacity(),
            servers=news,
            unchanged=[_named(one) for one in rest],
            at=SystemClock().now(),
            labels=facts.labels,
            homes=facts.homes,
        )
        try:
            reply = await self._hub.request(
                "POST",
                f"/internal/v1/agents/{facts.name}/report",
                content=report.model_dump_json().encode(),
                headers={
                    **service_headers(self._key, new_request_id()),
                    "Content-Type": "application/json",
                },
            )
            if reply.status_code in (401, 403, 409):
                raise NotThisHostError(_said(reply))
            if reply.status_code != 200:
                raise HubRefusedError(f"the hub answered {reply.status_code}: {reply.text[:300]}")
            return AgentReportReply.model_validate_json(reply.content)
        except http_errors() as error:
            raise OSError(str(error) or type(error).__name__) from error
        except ValidationError as error:
            raise HubRefusedError("the hub's answer is not what was agreed on") from error


def _named(report: ServerReport) -> Running:
    """Return what names a server that was reported before; it needs no second look."""
    return Running.model_construct(server_id=report.server_id, generation=report.generation)


def place_of(state_dir: Path) -> str:
    """Return what tells a directory from all others of this kernel's."""
    found = state_dir.stat()
    return f"{found.st_dev:x}:{found.st_ino:x}"


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def _said(reply: Answer) -> str:
    try:
        return ErrorBody.model_validate_json(reply.content).message
    except ValidationError:
        return f"the hub answered {reply.status_code}"

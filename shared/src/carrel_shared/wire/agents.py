"""What an agent tells the hub."""

from pydantic import Field

from carrel_shared.wire.base import WireReply, WireRequest
from carrel_shared.wire.servers import ServerReport


class Capacity(WireRequest):
    """What the host has, and how busy it is. Memory in bytes."""

    cores: int
    memory_total: int
    memory_available: int
    load_1m: float


class AgentReport(WireRequest):
    """Everything an agent knows, sent when it starts, on each change, and at each heartbeat.

    Attributes:
        instance: Random for each start of the agent. Two instances that report in turn under one
            name are two agents with one identity, and the second is refused.
        boot_id: The kernel's, so that a reboot is told from a restart.
        sequence: Counts the reports of this instance. One that arrives late is ignored.
        accounts: `any` for an agent with root, else the one account it can run.
        servers: Every server in the agent's journal, ended ones too until the hub forgets them.
    """

    instance: str
    boot_id: str
    sequence: int
    version: str
    accounts: str
    capacity: Capacity
    servers: list[ServerReport] = Field(default_factory=list)


class AgentReportReply(WireReply):
    """The hub's answer.

    Attributes:
        heartbeat_seconds: How often to report when nothing changes.
        forget: Ended servers whose report the hub has stored. The agent may drop their journal.
    """

    heartbeat_seconds: float = 10
    forget: list[str] = Field(default_factory=list)


class AgentSnapshot(WireReply):
    """What `GET /agent/v1/servers` answers."""

    instance: str
    boot_id: str
    servers: list[ServerReport]

"""What an agent tells the hub."""

from pydantic import Field

from carrel_shared.wire.base import (
    Generation,
    ModuleName,
    ServerId,
    Timestamp,
    WireReply,
    WireRequest,
)
from carrel_shared.wire.hosts import Labels
from carrel_shared.wire.servers import ServerReport


class Capacity(WireRequest):
    """What the host has, and how busy it is. Memory and disk in bytes.

    Attributes:
        disk_total: Of the file system that the agent's state is on; `disk_available` likewise.
        gpus: What each graphics processor found is called.
    """

    cores: int
    memory_total: int
    memory_available: int
    load_1m: float
    disk_total: int = 0
    disk_available: int = 0
    gpus: list[str] = Field(default_factory=list)


class Running(WireRequest):
    """A server of which nothing is new since the last report that was answered."""

    server_id: ServerId
    generation: Generation


class AgentReport(WireRequest):
    """Everything an agent knows, sent when it starts, on each change, and at each heartbeat.

    Attributes:
        instance: Random for each start of the agent. Two instances that report in turn under one
            name are two agents with one identity, and the second is refused.
        boot_id: The kernel's, so that a reboot is told from a restart.
        place: Which directory has its state, among all of that kernel's. A copy has another.
        machine: What tells the machine from others, over reboots; empty where nothing does.
        sequence: Counts the reports of this instance. One that arrives late is ignored.
        accounts: `any` for an agent with root, else the one account it can run.
        servers: Servers in the agent's journal, ended ones too until the hub forgets them: all of
            them at first, later those of which something is new.
        unchanged: All others, so that each report has the full list of what runs.
        at: The host's clock.
        labels: What its operator says of it.
        homes: What people's homes lie on there, by name, where several hosts share them.
    """

    instance: str
    boot_id: str
    place: str = Field(default="", max_length=64)
    machine: str = Field(default="", max_length=64)
    sequence: int
    version: str
    accounts: str
    capacity: Capacity
    servers: list[ServerReport] = Field(default_factory=list)
    unchanged: list[Running] = Field(default_factory=list)
    at: Timestamp | None = None
    labels: Labels = Field(default_factory=dict)
    homes: str = Field(default="", max_length=255)


class AgentReportReply(WireReply):
    """The hub's answer.

    Attributes:
        heartbeat_seconds: How often to report when nothing changes.
        forget: Ended servers whose report the hub has stored. The agent may drop their journal.
        repeat: Unchanged servers of which the hub wants a whole report all the same.
        trouble: What is wrong with the host, in plain words, for its log.
        preload: Modules that servers of its profiles are to find imported.
    """

    heartbeat_seconds: float = 10
    forget: list[str] = Field(default_factory=list)
    repeat: list[str] = Field(default_factory=list)
    trouble: str = ""
    preload: list[ModuleName] = Field(default_factory=list)


class AgentSnapshot(WireReply):
    """What `GET /agent/v1/servers` answers."""

    instance: str
    boot_id: str
    servers: list[ServerReport]

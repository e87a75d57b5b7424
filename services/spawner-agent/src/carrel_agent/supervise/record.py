"""What the journal holds of one server."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from carrel_agent.cgroups.group import GroupPlace
from carrel_shared.identity import ProcessIdentity
from carrel_shared.wire.base import Generation, ServerId, Timestamp
from carrel_shared.wire.limits import LimitEvent, Limits
from carrel_shared.wire.servers import ExitReport


class Handle(BaseModel):
    """The process of a server, so that it is found again and nothing else is taken for it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pid: int
    start_ticks: int
    boot_id: str

    @property
    def identity(self) -> ProcessIdentity:
        return ProcessIdentity(self.pid, self.start_ticks, self.boot_id)


class Stop(BaseModel):
    """Somebody asked for the end of a server."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reason: str
    interrupt_seconds: float
    terminate_seconds: float
    at: Timestamp


class Record(BaseModel):
    """One generation of one server, from the intent to start it until the hub has its end.

    Attributes:
        uid: What its process runs as, and the peer a proxy must find.
        socket: The path it listens at.
        port: The loopback port it listens on instead; 0 for none. The socket is then held, and
            not used.
        listens: False for what is ready as soon as it runs.
        gid: Of its account, where that is its user's own; `home` likewise.
        scratch: Its scratch home; empty where it is at home in `home`.
        command: What is run, for people; never with a secret in it.
        any_answer: Ready is any answer, not only 200: it runs a command of its profile's own.
        boot_id: The boot it was started in.
        intent_ticks: When the start was decided, in clock ticks since boot. No process that is
            older can be this server's.
        deadline_at: When a start that had no answer has failed.
        limits: In force.
        group: Its control group; None where the host has none.
        limit_events: Which limits it met so far.
        handle: None until a process is known.
        never_ready: The agent gave up waiting and ends it.
        forgotten: The hub has its end. Kept so that a late command does not start it again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    server_id: ServerId
    generation: Generation
    user: str
    server_name: str = ""
    account: str
    uid: int
    gid: int | None = None
    runner: str
    socket: str
    port: int = 0
    listens: bool = True
    base_url: str
    home: str = ""
    scratch: str = ""
    command: str = ""
    any_answer: bool = False
    boot_id: str
    intent_ticks: int
    requested_at: Timestamp
    deadline_at: Timestamp
    limits: Limits = Limits()
    group: GroupPlace | None = None
    limit_events: tuple[LimitEvent, ...] = ()
    handle: Handle | None = None
    started_at: Timestamp | None = None
    ready_at: Timestamp | None = None
    never_ready: bool = False
    stop: Stop | None = None
    exit: ExitReport | None = None
    forgotten: bool = False

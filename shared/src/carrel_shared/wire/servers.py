"""A notebook server as hub and agent speak of it."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from carrel_shared.addresses import parse_target
from carrel_shared.wire.base import (
    Generation,
    RunnerName,
    ServerId,
    Timestamp,
    WireReply,
    WireRequest,
)
from carrel_shared.wire.limits import LimitEvent, Limits


class ServerState(StrEnum):
    """Where a server's process stands, as the agent that owns it knows."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    STOPPED = "stopped"
    """It ended because somebody asked for that."""
    FAILED = "failed"
    """It ended by itself, or never became ready."""
    UNKNOWN = "unknown"
    """Nobody can say. Unknown is not dead: nothing is restarted, removed or signalled."""


class ServerSpec(WireRequest):
    """All an agent needs to start one server once, or one managed service.

    Attributes:
        kind: What it is. A service is called `user` here, and its account is chosen by other rules.
        account: The unix account that runs it. An agent without root runs its own account only.
            Empty for somebody who has none, whom only an agent with one account for all takes.
        cwd: Where it starts, an absolute path or one below the account's home; empty for that.
        scratch_home: It is at home in an empty directory of its host's, for this start.
        runner: How it is run; None lets the agent choose.
        command: What an `exec` runner executes; None means the host's JupyterLab.
        listen: Where it listens: the socket it is given, or a port that it finds in
            `JUPYTERHUB_SERVICE_URL`, as servers made for JupyterHub do. Nowhere: it is ready as
            soon as it runs.
        port: Which loopback port, where that is settled; else the agent chooses one.
        base_url: The path the server answers below, with slashes at both ends, percent-encoded.
        hub_prefix: The hub's own path below the public address, such as `/hub/`.
        default_url: Where a browser lands, below `base_url`.
        secret: What the proxy sends as `X-Carrel-Secret`. Random for each generation.
        limits: The most it may use. A start is refused where the host cannot enforce them.
        uid: The uid that the account had at earlier starts there, or has on another host with the
            same homes. A start as another one is refused.
        environment: Added to the account's own environment. Never holds a secret of another server.
        start_timeout_seconds: After this long without an answer the start has failed.
    """

    kind: Literal["notebook", "service"] = "notebook"
    server_id: ServerId
    generation: Generation
    user: str
    server_name: str = ""
    account: str
    cwd: str = ""
    scratch_home: bool = False
    runner: RunnerName | None = None
    command: list[str] | None = None
    listen: Literal["socket", "port", "nowhere"] = "socket"
    port: int | None = Field(default=None, ge=1, le=65535)
    base_url: str
    hub_prefix: str
    default_url: str = "/lab"
    secret: str = Field(repr=False)
    limits: Limits = Field(default_factory=Limits)
    uid: int | None = None
    environment: dict[str, str] = Field(default_factory=dict)
    start_timeout_seconds: float = Field(default=60, gt=0)


class StopRequest(WireRequest):
    """Stop one generation of a server.

    Attributes:
        reason: For the history: who wanted it and why, in plain words.
        interrupt_seconds: How long SIGINT is given before SIGTERM.
        terminate_seconds: How long SIGTERM is given before SIGKILL to the whole group.
    """

    generation: Generation
    reason: str
    interrupt_seconds: float = Field(default=5, ge=0)
    terminate_seconds: float = Field(default=3, ge=0)


class ExitReport(WireReply):
    """How a server ended.

    Attributes:
        code: Exit status, when it exited.
        signal: Signal number, when a signal ended it.
        cause: A stable word: `stopped`, `exited`, `signalled`, `memory_limit`, `never_ready`,
            `start_failed`, `host_rebooted`, or `unknown` when nobody was there to see.
        summary: The cause in plain words, for the user.
        advice: What can be done about it; empty where there is nothing to do.
        scratch_home: The trouble is its user's home, so it may do to start it in a scratch home.
        command: What was run. It holds no secrets.
        log_tail: The last lines it printed, at most 200.
    """

    code: int | None = None
    signal: int | None = None
    cause: str
    summary: str
    advice: str = ""
    scratch_home: bool = False
    command: str = ""
    log_tail: list[str] = Field(default_factory=list)
    at: Timestamp


class AccountFacts(WireReply):
    """Who a server runs as on its host."""

    account: str
    uid: int
    gid: int
    home: str


def _check_target(text: str) -> str:
    parse_target(text)
    return text


# One that proxies refuse would keep every route from them.
Target = Annotated[str, AfterValidator(_check_target)]
Uid = Annotated[int, Field(ge=0, lt=2**32)]


class ServerReport(WireReply):
    """What an agent knows of one server.

    Attributes:
        target: Where it listens: `unix:/path` or `http://127.0.0.1:port`. Set from `ready` on,
            unless it listens nowhere.
        peer_uid: The uid a proxy must find at the other end of `target`.
        progress: The latest step of a start, for the progress page.
        limit_events: Which limits it met so far, and how often.
        account: Who it runs as there; None of one that was started by an older agent.
    """

    server_id: ServerId
    generation: Generation
    state: ServerState
    runner: str
    target: Target | None = None
    peer_uid: Uid | None = None
    pid: int | None = None
    started_at: Timestamp | None = None
    ready_at: Timestamp | None = None
    progress: str = ""
    limit_events: list[LimitEvent] = Field(default_factory=list)
    account: AccountFacts | None = None
    exit: ExitReport | None = None


class LogTail(WireReply):
    """The last lines of a server's output."""

    lines: list[str]

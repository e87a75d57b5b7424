"""Notebook servers: what is wanted, what is known, and what a proxy needs to reach one."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, UniqueConstraint
from sqlmodel import Field, SQLModel

from carrel_hub.db.types import UtcDateTime


class Server(SQLModel, table=True):
    """One server of one user. Exactly one row a name, kept while it is stopped.

    Attributes:
        id: Random and immutable, 12 hex digits. Sockets, journals, routes, logs and cookies use it.
        display_name: What people call it; its name unless somebody said otherwise.
        remove_when_stopped: Somebody asked for its record to go as soon as nothing runs.
        target: What is wanted: `running` or `stopped` (`carrel_hub.spawns.states.Target`).
        state: What is known (`carrel_hub.spawns.states.State`).
        generation: Counts starts. Commands and reports of a lower one are stale.
        contract: How the start under way or running was told to know its visitors
            (`carrel_hub.spawns.profiles`).
        csrf: Likewise, who refuses what pages of other origins send to it.
        host: The agent that runs it, once placed.
        client_id: Its OAuth client, unique, and never derived from names by anybody else.
        secret: What the proxy shows the server; new for each generation.
        address: Where it listens, as the agent reported: `unix:/path` or `http://127.0.0.1:port`.
        peer_uid: The uid a proxy must find there.
        route_number: The number of the route change that made it reachable; None without a route.
        progress: 0 to 100 while starting, with `progress_message`. Of a running server that message
            tells of limits it met.
        failure: The last `ExitReport` as JSON, until the next start.
        stop_reason: Who stopped it and why, in plain words.
        request_id: The request that asked for the current target; the calls it leads to carry it.
        admitted_at: When the start was let in; None while it waits for its turn.
        stopping_since: When it was asked to end.
        driver: The replica that takes its steps (`carrel_hub.replicas`); whoever changes what is
            wanted drives from then on, and another one when that replica is gone.
        fence: Grows each time another replica drives, so that a late write of the one before is
            told.
        reserved_memory: What its host keeps free for it while it is not stopped, in bytes;
            `reserved_cores` and `reserved_gpus` likewise.
        attempts: Tries of the current step, for back-off; `next_attempt_at` is when to try again.
    """

    __tablename__ = "servers"
    __table_args__ = (UniqueConstraint("user_id", "name"),)

    id: str = Field(primary_key=True, max_length=12)
    user_id: int = Field(foreign_key="users.id", index=True, ondelete="CASCADE")
    name: str = Field(default="", max_length=255)
    display_name: str = Field(default="", max_length=255)
    remove_when_stopped: bool = False
    profile: str = Field(default="default", max_length=255)
    contract: str = Field(default="carrel", max_length=16)
    csrf: str = Field(default="origin", max_length=8)
    runner: str | None = Field(default=None, max_length=32)
    host: str | None = Field(default=None, index=True, max_length=255)
    target: str = Field(default="stopped", index=True, max_length=16)
    state: str = Field(default="stopped", index=True, max_length=16)
    generation: int = 0
    client_id: str = Field(unique=True, index=True, max_length=255)
    secret: str = Field(default="", repr=False, max_length=64)
    address: str | None = None
    peer_uid: int | None = None
    route_number: int | None = None
    progress: int = 0
    progress_message: str = ""
    failure: dict[str, Any] | None = Field(default=None, sa_type=JSON)
    stop_reason: str = ""
    user_options: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    request_id: str | None = Field(default=None, max_length=64)
    driver: str = Field(default="", max_length=16)
    fence: int = 0
    attempts: int = 0
    next_attempt_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    created: datetime = Field(sa_type=UtcDateTime)
    requested_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    admitted_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    stopping_since: datetime | None = Field(default=None, sa_type=UtcDateTime)
    started_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    ready_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    last_activity: datetime | None = Field(default=None, sa_type=UtcDateTime)
    reserved_memory: int = Field(default=0, sa_type=BigInteger)
    reserved_cores: float = 0.0
    reserved_gpus: int = 0

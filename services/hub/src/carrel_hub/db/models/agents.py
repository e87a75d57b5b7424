"""Compute hosts: as their agents last reported, and what lets them in."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON
from sqlmodel import Field, SQLModel

from carrel_hub.db.types import UtcDateTime


class AgentHost(SQLModel, table=True):
    """One host. Where its agent is called was said when it joined, or by the settings.

    Attributes:
        instance: The agent process that reports; `sequence` is its latest report.
        previous_instance: The one before it. If that one is heard again, two agents share a name.
        accounts: `any`, or the one unix account it can run.
        labels: What its operator says of it, as last reported.
        place: Where its agent keeps its state, as one directory among all of its kernel's; empty
            until it has said so.
        machine: Which machine it is, over reboots; empty until it has said so.
        other_machine: The one that was refused with its credentials, until it reports itself again
            or somebody accepts that one.
        homes: What people's homes lie on there, by name, where several hosts share them; else
            empty.
        clock_off: By how many seconds its clock was ahead of the hub's, when it last reported.
        trouble: What is wrong with it, in plain words, and `trouble_at` when that was last so.
        draining: Nothing new is placed there.
        joined_at: When it was given its credentials; None for a host of the settings.
        removed_at: When it was taken away. Its credentials are worth nothing since.
        credentials: Counts what it was given; only the latest are good.
        address: Where it is reached: an IP address or a name.
    """

    __tablename__ = "agents"

    name: str = Field(primary_key=True, max_length=255)
    instance: str = Field(default="", max_length=64)
    previous_instance: str = Field(default="", max_length=64)
    boot_id: str = Field(default="", max_length=64)
    place: str = Field(default="", max_length=64)
    machine: str = Field(default="", max_length=64)
    other_machine: str = Field(default="", max_length=64)
    sequence: int = 0
    version: str = Field(default="", max_length=64)
    accounts: str = Field(default="", max_length=255)
    capacity: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    seen_at: datetime | None = Field(default=None, sa_type=UtcDateTime, index=True)
    labels: dict[str, str] = Field(default_factory=dict, sa_type=JSON)
    homes: str = Field(default="", max_length=255)
    clock_off: float = 0.0
    trouble: str = ""
    trouble_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    draining: bool = False
    joined_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    removed_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    credentials: int = 0
    address: str = Field(default="", max_length=255)
    agent_port: int = 0
    relay_port: int = 0


class JoinToken(SQLModel, table=True):
    """Lets one host join, once. Kept as a hash."""

    __tablename__ = "join_tokens"

    token_hash: str = Field(primary_key=True, max_length=64)
    host: str = Field(index=True, max_length=255)
    created: datetime = Field(sa_type=UtcDateTime)
    expires_at: datetime = Field(sa_type=UtcDateTime)


class HostAccount(SQLModel, table=True):
    """Who somebody is on a host, as of the first start there: pinned, so that it cannot change.

    Attributes:
        used_at: When the last start there was.
    """

    __tablename__ = "host_accounts"

    user_id: int = Field(foreign_key="users.id", primary_key=True, ondelete="CASCADE")
    host: str = Field(primary_key=True, max_length=255)
    account: str = Field(max_length=255)
    uid: int
    gid: int
    home: str
    used_at: datetime = Field(sa_type=UtcDateTime, index=True)

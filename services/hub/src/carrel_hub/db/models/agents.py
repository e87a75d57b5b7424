"""Compute hosts, as their agents last reported."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON
from sqlmodel import Field, SQLModel

from carrel_hub.db.types import UtcDateTime


class AgentHost(SQLModel, table=True):
    """One host. Where its agent is called comes from the hub's settings, never from a report.

    Attributes:
        instance: The agent process that reports; `sequence` is its latest report.
        previous_instance: The one before it. If that one is heard again, two agents share a name.
        accounts: `any`, or the one unix account it can run.
    """

    __tablename__ = "agents"

    name: str = Field(primary_key=True, max_length=255)
    instance: str = Field(default="", max_length=64)
    previous_instance: str = Field(default="", max_length=64)
    boot_id: str = Field(default="", max_length=64)
    sequence: int = 0
    version: str = Field(default="", max_length=64)
    accounts: str = Field(default="", max_length=255)
    capacity: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    seen_at: datetime | None = Field(default=None, sa_type=UtcDateTime, index=True)

"""Hub processes that share this database, and what only one of them may do at a time."""

from datetime import datetime

from sqlalchemy import JSON
from sqlmodel import Field, SQLModel

from carrel_hub.db.types import UtcDateTime


class Replica(SQLModel, table=True):
    """One hub process, from its start until it ends or has been silent for long.

    Attributes:
        id: Random, and never used again: who was silent for too long takes another one.
        address: Where proxies reach it; a target of the hub's own route. Empty until it serves.
        agreed: What all replicas must have alike, as digests by name.
        seen_at: By the database's clock, which all replicas share.
        link: The process of PostgreSQL that its heartbeats come through: when that is gone, most
            likely so is the replica.
    """

    __tablename__ = "replicas"

    id: str = Field(primary_key=True, max_length=16)
    address: str
    version: str = Field(default="", max_length=64)
    agreed: dict[str, str] = Field(default_factory=dict, sa_type=JSON)
    started_at: datetime = Field(sa_type=UtcDateTime)
    seen_at: datetime = Field(sa_type=UtcDateTime)
    link: int | None = None


class Lease(SQLModel, table=True):
    """That one replica does something alone, such as pushing to one proxy.

    Attributes:
        name: What it is about: `proxy:edge`.
        holder: A replica's id. When that replica is gone or silent, the next one takes it over.
        fence: Grows each time it changes hands, so that a late write of an earlier holder is told.
    """

    __tablename__ = "leases"

    name: str = Field(primary_key=True, max_length=255)
    holder: str = Field(max_length=16)
    fence: int = 0

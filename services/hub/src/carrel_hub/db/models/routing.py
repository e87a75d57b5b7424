"""The numbered change log of routes and revocations (architecture decision 8)."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON
from sqlmodel import Field, SQLModel

from carrel_hub.db.types import UtcDateTime


class RouteCounter(SQLModel, table=True):
    """One row. Updated last in each transaction that changes routes, so numbers commit in order.

    Attributes:
        epoch: Names the lineage of the numbers; a new one makes every proxy take the whole table.
        origin: What all routes are built from; when it changes, so does the epoch.
        begun_at: When the epoch began.
    """

    __tablename__ = "route_counter"

    id: int = Field(default=1, primary_key=True)
    epoch: str = Field(max_length=32)
    number: int = 0
    origin: str = ""
    begun_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class RouteChange(SQLModel, table=True):
    """One change, as it is sent to proxies (`carrel_shared.wire.routes.Change`)."""

    __tablename__ = "route_changes"

    number: int = Field(primary_key=True)
    payload: dict[str, Any] = Field(sa_type=JSON)


class ProxyStatus(SQLModel, table=True):
    """How far a proxy has acknowledged, and when it was last heard.

    Attributes:
        away: It did not answer the last call. Nothing waits for a proxy that is away; when it is
            back it is brought up to date before anything else is sent.
        kept: What this database does not know and the proxy goes on serving, because an epoch has
            just begun and not every agent has reported yet (`carrel_hub.routing.guard`).
        seen_at: When it last answered; written with each change of the rest, and else now and then.
    """

    __tablename__ = "proxies"

    name: str = Field(primary_key=True, max_length=255)
    epoch: str = Field(default="", max_length=32)
    number: int = 0
    away: bool = False
    kept: list[str] = Field(default_factory=list, sa_type=JSON)
    seen_at: datetime | None = Field(default=None, sa_type=UtcDateTime)

"""What happened, to what, by whom: the history of a server and the audit trail of an actor."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON
from sqlmodel import Field, SQLModel

from carrel_hub.db.types import UtcDateTime


class Event(SQLModel, table=True):
    """One fact, written in the transaction of the change it tells of. Never changed, never secret.

    Attributes:
        kind: A stable word such as `server.starting` or `session.signed_in`.
        actor: Who did it: `user:alice`, `agent:local`, `console`, `hub`.
        subject: To what: `server:1f2e3d4c5b6a`, `user:alice`.
        message: The same in plain words.
    """

    __tablename__ = "events"

    id: int | None = Field(default=None, primary_key=True)
    at: datetime = Field(sa_type=UtcDateTime, index=True)
    kind: str = Field(index=True, max_length=64)
    actor: str = Field(index=True, max_length=300)
    subject: str = Field(index=True, max_length=300)
    server_id: str | None = Field(default=None, index=True, max_length=12)
    generation: int | None = None
    message: str = ""
    data: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    request_id: str | None = Field(default=None, max_length=64)

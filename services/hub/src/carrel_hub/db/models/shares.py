"""Servers that their owners share: with whom, and codes that let whoever has one accept a share."""

from datetime import datetime

from sqlalchemy import JSON, UniqueConstraint
from sqlmodel import Field, SQLModel

from carrel_hub.db.types import UtcDateTime


class Share(SQLModel, table=True):
    """That a user, or the members of a group, may use a server. One row for each of them.

    Attributes:
        user_id, group_id: With whom; one of them.
        scopes: What they may do, by name. Each is held for this server and nothing else, so a
            share goes on when the server or its owner is called something else.
    """

    __tablename__ = "shares"
    __table_args__ = (
        UniqueConstraint("server_id", "user_id"),
        UniqueConstraint("server_id", "group_id"),
    )

    id: int | None = Field(default=None, primary_key=True)
    server_id: str = Field(foreign_key="servers.id", index=True, ondelete="CASCADE", max_length=12)
    user_id: int | None = Field(
        default=None, foreign_key="users.id", index=True, ondelete="CASCADE"
    )
    group_id: int | None = Field(
        default=None, foreign_key="groups.id", index=True, ondelete="CASCADE"
    )
    scopes: list[str] = Field(default_factory=list, sa_type=JSON)
    created: datetime = Field(sa_type=UtcDateTime)


class ShareCode(SQLModel, table=True):
    """A secret that whoever has it may exchange for a share, as often as they like until it ends.

    It is worth no more than what its issuer may do when it is exchanged, and goes with its issuer.

    Attributes:
        code_hash: SHA-256 (hex) of the secret.
        user_id, service_id: Who issued it; one of them.
        scopes: As in the share that comes of it.
    """

    __tablename__ = "share_codes"

    id: int | None = Field(default=None, primary_key=True)
    code_hash: str = Field(unique=True, index=True, max_length=64)
    server_id: str = Field(foreign_key="servers.id", index=True, ondelete="CASCADE", max_length=12)
    user_id: int | None = Field(
        default=None, foreign_key="users.id", index=True, ondelete="CASCADE"
    )
    service_id: int | None = Field(
        default=None, foreign_key="services.id", index=True, ondelete="CASCADE"
    )
    scopes: list[str] = Field(default_factory=list, sa_type=JSON)
    created: datetime = Field(sa_type=UtcDateTime)
    expires_at: datetime = Field(sa_type=UtcDateTime, index=True)
    exchange_count: int = 0
    last_exchanged_at: datetime | None = Field(default=None, sa_type=UtcDateTime)

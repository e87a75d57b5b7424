"""API tokens and the tokens that the OAuth provider issues."""

from datetime import datetime

from sqlalchemy import JSON
from sqlmodel import Field, SQLModel

from carrel_hub.db.types import UtcDateTime


class Token(SQLModel, table=True):
    """A token; only its SHA-256 (hex) is stored. A user owns it, or a service.

    Attributes:
        client_id: The OAuth client it was issued to; None for one made directly.
        server_id: The server whose client that is; without a client, the server that acts with it.
        session_hash: The browser session it is tied to; signing out ends it.
        scopes: What it may do, always cut down to what its owner may do at that moment.
    """

    __tablename__ = "tokens"

    id: int | None = Field(default=None, primary_key=True)
    token_hash: str = Field(unique=True, index=True, max_length=64)
    user_id: int | None = Field(
        default=None, foreign_key="users.id", index=True, ondelete="CASCADE"
    )
    service_id: int | None = Field(
        default=None, foreign_key="services.id", index=True, ondelete="CASCADE"
    )
    client_id: str | None = Field(default=None, index=True, max_length=255)
    server_id: str | None = Field(
        default=None, foreign_key="servers.id", index=True, ondelete="CASCADE", max_length=12
    )
    session_hash: str | None = Field(default=None, index=True, max_length=64)
    scopes: list[str] = Field(default_factory=list, sa_type=JSON)
    note: str = ""
    created: datetime = Field(sa_type=UtcDateTime)
    expires_at: datetime | None = Field(default=None, sa_type=UtcDateTime, index=True)
    last_activity: datetime | None = Field(default=None, sa_type=UtcDateTime)

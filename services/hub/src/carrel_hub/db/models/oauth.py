"""Authorization codes on their way through a browser."""

from datetime import datetime

from sqlalchemy import JSON
from sqlmodel import Field, SQLModel

from carrel_hub.db.types import UtcDateTime


class OAuthCode(SQLModel, table=True):
    """An authorization code (RFC 6749 4.1.2), stored as SHA-256 (hex).

    Redeemed by one statement that sets `used_at` where it is null: of a hundred attempts at once,
    one succeeds. Bound to client, user, browser session and PKCE challenge (RFC 7636).

    Attributes:
        challenge: Empty when the client of a service sent none.
        challenge_method: `S256` or `plain`.
        scopes: What the person granted.
    """

    __tablename__ = "oauth_codes"

    code_hash: str = Field(primary_key=True, max_length=64)
    client_id: str = Field(index=True, max_length=255)
    server_id: str | None = Field(
        default=None, foreign_key="servers.id", index=True, ondelete="CASCADE", max_length=12
    )
    service_id: int | None = Field(
        default=None, foreign_key="services.id", index=True, ondelete="CASCADE"
    )
    user_id: int = Field(foreign_key="users.id", index=True, ondelete="CASCADE")
    session_hash: str = Field(max_length=64)
    redirect_uri: str
    challenge: str = Field(max_length=128)
    challenge_method: str = Field(default="S256", max_length=8)
    scopes: list[str] = Field(default_factory=list, sa_type=JSON)
    created: datetime = Field(sa_type=UtcDateTime)
    expires_at: datetime = Field(sa_type=UtcDateTime, index=True)
    used_at: datetime | None = Field(default=None, sa_type=UtcDateTime)

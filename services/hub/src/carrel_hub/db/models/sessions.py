"""Signed-in browsers, one-time links, and the attempts that are counted against guessing."""

from datetime import datetime

from sqlmodel import Field, SQLModel

from carrel_hub.db.types import UtcDateTime


class BrowserSession(SQLModel, table=True):
    """One signed-in browser. Secrets are stored as SHA-256 (hex) only.

    Attributes:
        secret_hash: Of the random value in the `jupyterhub-hub-login` cookie.
        session_hash: Of the `jupyterhub-session-id` cookie. Tokens that the OAuth provider issues
            to this browser carry it, and end with it.
        password_mark: A keyed hash of the shared password that it was made with, so that it ends
            with that password; empty when it was made otherwise, None from before there were marks.
    """

    __tablename__ = "browser_sessions"

    id: int | None = Field(default=None, primary_key=True)
    secret_hash: str = Field(unique=True, index=True, max_length=64)
    session_hash: str = Field(index=True, max_length=64)
    user_id: int = Field(foreign_key="users.id", index=True, ondelete="CASCADE")
    password_mark: str | None = Field(default=None, max_length=43)
    created: datetime = Field(sa_type=UtcDateTime)
    expires_at: datetime = Field(sa_type=UtcDateTime, index=True)


class SignInLink(SQLModel, table=True):
    """A one-time link that signs its user in. Used once, by one statement that sets `used_at`."""

    __tablename__ = "sign_in_links"

    secret_hash: str = Field(primary_key=True, max_length=64)
    user_id: int = Field(foreign_key="users.id", index=True, ondelete="CASCADE")
    created: datetime = Field(sa_type=UtcDateTime)
    expires_at: datetime = Field(sa_type=UtcDateTime, index=True)
    used_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class LoginAttempt(SQLModel, table=True):
    """A failed sign-in, kept as long as it counts against its address and name."""

    __tablename__ = "login_attempts"

    id: int | None = Field(default=None, primary_key=True)
    at: datetime = Field(sa_type=UtcDateTime, index=True)
    address: str = Field(index=True, max_length=64)
    name_hash: str = Field(index=True, max_length=64)

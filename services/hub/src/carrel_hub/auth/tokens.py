"""Tokens: 256 random bits, stored as a hash, shown once."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import insert
from sqlmodel import col, delete
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.auth.digest import digest, new_secret
from carrel_hub.context import Hub
from carrel_hub.db.asking import do_returning
from carrel_hub.db.models import Service, Token, User
from carrel_hub.events import record, service_actor, user_actor
from carrel_hub.rbac import Scope
from carrel_hub.routing.changes import revoke
from carrel_shared.wire.routes import Revocation

_INSERT = insert(Token).returning(col(Token.id))


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token that was just made; the only moment its secret is known."""

    row: Token
    secret: str

    def __repr__(self) -> str:
        return f"NewToken(id={self.row.id})"


async def issue_token(
    db: AsyncSession,
    hub: Hub,
    owner: User | Service,
    *,
    actor: str,
    scopes: Sequence[str] = (Scope.INHERIT,),
    note: str = "",
    expires_in: timedelta | None = None,
    secret: str | None = None,
    server_id: str | None = None,
    client_id: str | None = None,
    session_hash: str | None = None,
) -> NewToken:
    """Make a token for API calls, in the caller's transaction.

    Args:
        owner: Whose it is, who can never be exceeded by it.
        actor: Who asks, for the history.
        scopes: What it may do; by default whatever its owner may at the moment of use.
        note: What it is for, in its owner's words.
        expires_in: How long it is good; None for ever.
        secret: What it is, where that was settled elsewhere.
        server_id: The server that acts with it, and with which it ends.
        client_id: The OAuth client it is for.
        session_hash: The browser session with which it ends.
    """
    now = hub.clock.now()
    secret = new_secret() if secret is None else secret
    assert owner.id is not None  # noqa: S101 - it came from the database
    row = Token(
        token_hash=digest(secret),
        user_id=owner.id if isinstance(owner, User) else None,
        service_id=owner.id if isinstance(owner, Service) else None,
        server_id=server_id,
        client_id=client_id,
        session_hash=session_hash,
        scopes=[str(scope) for scope in scopes],
        note=note[:500],
        created=now,
        expires_at=None if expires_in is None else now + expires_in,
    )
    values = row.model_dump(exclude={"id"})
    row.id = await do_returning(db, _INSERT, values)
    record(db, "token.created", actor, owner_actor(owner), at=now, data={"token_id": row.id})
    return NewToken(row, secret)


def owner_actor(owner: User | Service) -> str:
    """Return who an owner is in the history."""
    return user_actor(owner.name) if isinstance(owner, User) else service_actor(owner.name)


async def revoke_token(
    db: AsyncSession, hub: Hub, row: Token, *, actor: str, owner: User | Service, reason: str
) -> None:
    """End a token here and in every proxy. After the commit call `Wakeups.notify()`.

    Args:
        owner: Whose it is.
        reason: In plain words, for the history.
    """
    await db.exec(delete(Token).where(col(Token.id) == row.id))
    record(
        db,
        "token.revoked",
        actor,
        owner_actor(owner),
        at=hub.clock.now(),
        message=reason,
        data={"token_id": row.id},
    )
    await revoke(db, Revocation(token_hash=row.token_hash))

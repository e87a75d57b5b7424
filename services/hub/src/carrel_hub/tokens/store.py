"""Tokens of users: listed with what they may do now, and revoked with what hangs on them."""

from sqlalchemy.orm import aliased
from sqlmodel import col, or_, select
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.auth.rights import narrowed, owner_rights
from carrel_hub.auth.subjects import Subject
from carrel_hub.auth.tokens import revoke_token
from carrel_hub.context import Hub
from carrel_hub.db.models import Server, Service, Token, User
from carrel_hub.tokens.models import token_model


async def token_models(
    session: AsyncSession, hub: Hub, user: User, number: int | None = None
) -> list[dict[str, object]]:
    """Return a user's tokens that have not expired, or the one of that number."""
    owner = aliased(User)
    statement = (
        select(Token, owner.name, Server.name, Service.name)
        .join(Service, col(Service.client_id) == col(Token.client_id), isouter=True)
        .join(Server, col(Server.id) == col(Token.server_id), isouter=True)
        .join(owner, col(owner.id) == col(Server.user_id), isouter=True)
        .where(
            Token.user_id == user.id,
            or_(col(Token.expires_at).is_(None), col(Token.expires_at) > hub.clock.now()),
        )
        .order_by(col(Token.id))
    )
    if number is not None:
        statement = statement.where(Token.id == number)
    rows = (await session.exec(statement)).all()
    owned = await owner_rights(session, hub, user, [text for row in rows for text in row[0].scopes])
    return [
        token_model(
            token,
            user,
            narrowed(token.scopes, user, owned),
            places=hub.settings.places,
            server=None if server_name is None else (owner_name, server_name),
            service=service_name,
        )
        for token, owner_name, server_name, service_name in rows
    ]


async def revoke_with_client(
    session: AsyncSession, hub: Hub, row: Token, owner: User, *, by: Subject
) -> None:
    """Revoke a token; one that a client got, with all that it got for the same person."""
    rows = [row]
    if row.client_id is not None:
        same = select(Token).where(Token.user_id == owner.id, Token.client_id == row.client_id)
        rows = list((await session.exec(same)).all())
    for one in rows:
        await revoke_token(
            session, hub, one, actor=by.actor, owner=owner, reason=f"{by.name} revoked it"
        )

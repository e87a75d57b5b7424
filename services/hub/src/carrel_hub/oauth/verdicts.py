"""Whether the bearer of a token may use a server, as a proxy asks."""

from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.auth.subjects import is_good, look_up_token, token_subject
from carrel_hub.context import Hub
from carrel_hub.db.models import Service, Token, User
from carrel_hub.oauth.clients import client_of_server
from carrel_shared.wire.access import Verdict, Visitor

UNKNOWN = Verdict(known=False, allow=False)
NO = Verdict(known=True, allow=False)


async def give_verdict(db: AsyncSession, hub: Hub, token_hash: str, server_id: str) -> Verdict:
    """Judge a token for a server. What is not surely allowed is not."""
    found = await look_up_token(db, token_hash)
    if found is None:
        return UNKNOWN
    token, owner = found
    if not is_good(hub, token, owner):
        return NO
    client = await client_of_server(db, hub.settings.places, server_id)
    if client is None:
        return NO
    subject = await token_subject(db, hub, token, owner)
    return verdict_for(token, owner, allow=client.opens_to(subject))


def verdict_for(token: Token, owner: User | Service, *, allow: bool) -> Verdict:
    """Return the answer about a token that is known and good."""
    return Verdict(
        known=True,
        allow=allow,
        visitor=Visitor(name=owner.name, display_name=owner.name, admin=owner.admin),
        session_hash=token.session_hash,
        expires_at=token.expires_at,
    )

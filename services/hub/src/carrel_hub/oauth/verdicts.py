"""Whether the bearer of a token may use a server, as a proxy asks."""

from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.auth.subjects import (
    Subject,
    SubjectKind,
    is_good,
    look_up_token,
    scopes_of_token,
)
from carrel_hub.context import Hub
from carrel_hub.db.models import Token, User
from carrel_hub.groups.membership import members_for
from carrel_hub.oauth.clients import client_of_server
from carrel_shared.wire.access import Verdict, Visitor

UNKNOWN = Verdict(known=False, allow=False)
NO = Verdict(known=True, allow=False)


async def give_verdict(db: AsyncSession, hub: Hub, token_hash: str, server_id: str) -> Verdict:
    """Judge a token for a server. What is not surely allowed is not."""
    found = await look_up_token(db, token_hash)
    if found is None:
        return UNKNOWN
    token, user = found
    if not is_good(token, user, hub.clock.now()):
        return NO
    client = await client_of_server(db, hub.settings.places, server_id)
    if client is None:
        return NO
    members = await members_for(db, token.scopes)
    scopes = scopes_of_token(token, user, members)
    subject = Subject(SubjectKind.TOKEN, user, scopes=scopes, members=members)
    return verdict_for(token, user, allow=client.opens_to(subject))


def verdict_for(token: Token, user: User, *, allow: bool) -> Verdict:
    """Return the answer about a token that is known and good."""
    return Verdict(
        known=True,
        allow=allow,
        visitor=Visitor(name=user.name, display_name=user.name, admin=user.admin),
        session_hash=token.session_hash,
        expires_at=token.expires_at,
    )

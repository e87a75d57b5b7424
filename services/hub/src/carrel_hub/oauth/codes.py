"""Authorization codes: issued to a browser, redeemed once by a proxy."""

import hmac
from dataclasses import dataclass
from datetime import timedelta

import structlog
from sqlmodel import col, delete, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.auth.digest import MAX_SECRET_LENGTH, digest, new_secret
from carrel_hub.auth.subjects import token_subject
from carrel_hub.auth.tokens import NewToken, issue_token, revoke_token
from carrel_hub.context import Hub
from carrel_hub.db.models import BrowserSession, OAuthCode, Token, User
from carrel_hub.events import record, server_subject, user_actor
from carrel_hub.oauth.clients import ServerClient, client_of_server
from carrel_hub.oauth.pkce import proves
from carrel_hub.rbac import oauth_token_scopes
from carrel_shared.wire.access import CodeRedemption

log = structlog.get_logger(__name__)

CODE_LIFETIME = timedelta(seconds=300)
TOKEN_LIFETIME = timedelta(days=14)
"""A token never outlives the browser session it belongs to either."""


@dataclass(frozen=True, slots=True)
class Redemption:
    """What came of redeeming a code: a token with its owner, or why there is none."""

    token: NewToken | None = None
    user: User | None = None
    refusal: str = ""


async def issue_code(
    db: AsyncSession,
    hub: Hub,
    client: ServerClient,
    user: User,
    session: BrowserSession,
    *,
    challenge: str,
) -> str:
    """Return a code for this browser, good once and for `CODE_LIFETIME`."""
    now = hub.clock.now()
    code = new_secret()
    assert user.id is not None  # noqa: S101 - it came from the database
    db.add(
        OAuthCode(
            code_hash=digest(code),
            client_id=client.client_id,
            server_id=client.server_id,
            user_id=user.id,
            session_hash=session.session_hash,
            redirect_uri=client.redirect_uri,
            challenge=challenge,
            created=now,
            expires_at=now + CODE_LIFETIME,
        )
    )
    record(
        db,
        "access.granted",
        user_actor(user.name),
        server_subject(client.server_id),
        at=now,
        server_id=client.server_id,
    )
    return code


async def redeem_code(db: AsyncSession, hub: Hub, asked: CodeRedemption) -> Redemption:
    """Exchange a code for a token.

    The first attempt uses the code up, whatever comes of it. A code that comes again has been
    stolen or its answer was: what was issued for it ends (RFC 6749 4.1.2).
    """
    if len(asked.code) > MAX_SECRET_LENGTH:
        return Redemption(refusal="no such code")
    code_hash = digest(asked.code)
    used = await db.exec(
        update(OAuthCode)
        .where(col(OAuthCode.code_hash) == code_hash, col(OAuthCode.used_at).is_(None))
        .values(used_at=hub.clock.now())
        .execution_options(synchronize_session=False)
    )
    code = (await db.exec(select(OAuthCode).where(OAuthCode.code_hash == code_hash))).first()
    if code is None:
        return Redemption(refusal="no such code")
    user = await db.get(User, code.user_id)
    session = (
        await db.exec(
            select(BrowserSession).where(BrowserSession.session_hash == code.session_hash)
        )
    ).first()
    if user is None or session is None or user.disabled:
        return Redemption(refusal="its browser is signed out")
    if used.rowcount != 1:
        await _end_what_was_issued(db, hub, code, user)
        return Redemption(refusal="the code was used before")
    client = await client_of_server(db, hub.settings.places, asked.server_id)
    if (refusal := _refusal(hub, asked, code, session, client)) is not None or client is None:
        return Redemption(refusal=refusal or "no such server")
    now = hub.clock.now()
    token = await issue_token(
        db,
        hub,
        user,
        actor=user_actor(user.name),
        scopes=oauth_token_scopes(user.name, client.owner, client.server_name),
        expires_in=min(TOKEN_LIFETIME, session.expires_at - now),
    )
    token.row.client_id, token.row.server_id = client.client_id, client.server_id
    token.row.session_hash = code.session_hash
    db.add(token.row)
    await db.flush()
    subject = await token_subject(db, hub, token.row, user)
    if not client.opens_to(subject):  # the right was taken away in these seconds
        await db.exec(delete(Token).where(col(Token.id) == token.row.id))
        return Redemption(refusal="its user has no right to that server any more")
    return Redemption(token, user)


def _refusal(
    hub: Hub,
    asked: CodeRedemption,
    code: OAuthCode,
    session: BrowserSession,
    client: ServerClient | None,
) -> str | None:
    now = hub.clock.now()
    if now >= code.expires_at or now >= session.expires_at:
        return "the code is too old"
    if (
        client is None
        or code.server_id != client.server_id
        or not (asked.client_id == code.client_id == client.client_id)
    ):
        return "the code is for another server"
    if not asked.redirect_uri == code.redirect_uri == client.redirect_uri:
        return "the address of the answer is another"
    if not proves(asked.code_verifier, code.challenge):
        return "the code verifier does not fit"
    if asked.session_id is None:
        if not hub.settings.places.are_safe:
            return "the browser does not show its session"
    elif not hmac.compare_digest(digest(asked.session_id), code.session_hash):
        return "another browser asked for the code"
    return None


async def _end_what_was_issued(db: AsyncSession, hub: Hub, code: OAuthCode, user: User) -> None:
    tokens = (
        await db.exec(
            select(Token).where(
                Token.client_id == code.client_id,
                Token.session_hash == code.session_hash,
                Token.user_id == code.user_id,
                Token.created >= code.created,
            )
        )
    ).all()
    for token in tokens:
        await revoke_token(
            db,
            hub,
            token,
            actor=user_actor(user.name),
            owner=user,
            reason="The code it was issued for was used a second time.",
        )
    log.warning("code_replayed", user=user.name, client_id=code.client_id, ended=len(tokens))

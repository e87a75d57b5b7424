"""Authorization codes: issued to a browser, redeemed once by its client."""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import structlog
from sqlmodel import col, delete, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.auth.digest import MAX_SECRET_LENGTH, digest, new_secret
from carrel_hub.auth.subjects import is_refused, token_subject
from carrel_hub.auth.tokens import NewToken, issue_token, revoke_token
from carrel_hub.context import Hub
from carrel_hub.db.models import BrowserSession, OAuthCode, Token, User
from carrel_hub.events import record, user_actor
from carrel_hub.oauth.clients import Client
from carrel_hub.oauth.pkce import proves
from carrel_hub.oauth.scopes import always_granted

log = structlog.get_logger(__name__)

CODE_LIFETIME = timedelta(seconds=300)
TOKEN_LIFETIME = timedelta(days=14)
"""A token never outlives the browser session it belongs to either."""
MOST_CODES = 100
"""How many codes of one user are kept, used ones among them."""
MOST_OF_A_BROWSER = 20
"""How many good tokens one browser has for one client: each of its tabs may have asked for one."""


@dataclass(frozen=True, slots=True)
class Redeeming:
    """What a client brings to have a code exchanged.

    Attributes:
        client: Who asks, once it was known; None when there is none of that id.
        code_verifier: Empty for none.
        session_id: The browser's, where the proxy asks and could not be sure of it otherwise.
    """

    client: Client | None
    redirect_uri: str
    code: str = field(repr=False)
    code_verifier: str = field(default="", repr=False)
    session_id: str | None = None


@dataclass(frozen=True, slots=True)
class Redemption:
    """What came of redeeming a code: a token with its owner, or why there is none.

    Attributes:
        error: The word for the refusal (RFC 6749 5.2).
    """

    token: NewToken | None = None
    user: User | None = None
    refusal: str = ""
    error: str = "invalid_grant"


async def issue_code(
    db: AsyncSession,
    hub: Hub,
    client: Client,
    user: User,
    session: BrowserSession,
    *,
    scopes: Sequence[str],
    challenge: str,
    challenge_method: str,
) -> str:
    """Return a code for this browser, good once and for `CODE_LIFETIME`.

    Args:
        scopes: What the person grants beside what every token has.
        challenge: Empty for none.
    """
    now = hub.clock.now()
    code = new_secret()
    await _forget_surplus(db, user)
    assert user.id is not None  # noqa: S101 - it came from the database
    db.add(
        OAuthCode(
            code_hash=digest(code),
            client_id=client.client_id,
            server_id=client.server_id,
            service_id=client.service_id,
            user_id=user.id,
            session_hash=session.session_hash,
            redirect_uri=client.redirect_uri,
            challenge=challenge,
            challenge_method=challenge_method,
            scopes=list(scopes),
            created=now,
            expires_at=now + CODE_LIFETIME,
        )
    )
    record(
        db,
        "access.granted",
        user_actor(user.name),
        client.subject,
        at=now,
        server_id=client.server_id,
    )
    return code


async def _forget_surplus(db: AsyncSession, user: User) -> None:
    """Keep some codes of a user and no more, or a browser could have the table grow."""
    mine = select(OAuthCode.code_hash).where(OAuthCode.user_id == user.id)
    older = mine.order_by(col(OAuthCode.created).desc()).offset(MOST_CODES - 1)
    if hashes := (await db.exec(older)).all():
        await db.exec(delete(OAuthCode).where(col(OAuthCode.code_hash).in_(hashes)))


async def is_known(db: AsyncSession, code: str) -> bool:
    """Whether there is such a code, used or not. Asked before a transaction is begun that writes:
    anybody can make codes up.
    """
    if len(code) > MAX_SECRET_LENGTH:
        return False
    there = select(OAuthCode.code_hash).where(OAuthCode.code_hash == digest(code))
    return (await db.exec(there)).first() is not None


async def redeem_code(db: AsyncSession, hub: Hub, asked: Redeeming) -> Redemption:
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
    if user is None or session is None or is_refused(hub, user):
        return Redemption(refusal="its browser is signed out")
    if used.rowcount != 1:
        await _end_what_was_issued(db, hub, code, user)
        return Redemption(refusal="the code was used before")
    client = asked.client
    if (refused := _refused(hub, asked, code, session)) is not None or client is None:
        return refused or Redemption(refusal="no such client")
    now = hub.clock.now()
    token = await issue_token(
        db,
        hub,
        user,
        actor=user_actor(user.name),
        scopes=list(dict.fromkeys([*code.scopes, *always_granted(client, user.name)])),
        expires_in=min(TOKEN_LIFETIME, session.expires_at - now),
        client_id=client.client_id,
        server_id=client.server_id,
        session_hash=code.session_hash,
    )
    subject = await token_subject(db, hub, token.row, user)
    if not client.opens_to(subject):  # the right was taken away in these seconds
        await db.exec(delete(Token).where(col(Token.id) == token.row.id))
        return Redemption(refusal=f"its user has no right to {client.title} any more")
    await _end_surplus(db, hub, token.row, user)
    return Redemption(token, user)


async def _end_surplus(db: AsyncSession, hub: Hub, new: Token, user: User) -> None:
    """End what one browser was given for one client before, but the latest few."""
    same = select(Token).where(
        Token.user_id == user.id,
        Token.client_id == new.client_id,
        Token.session_hash == new.session_hash,
    )
    older = same.order_by(col(Token.id).desc()).offset(MOST_OF_A_BROWSER)
    actor = user_actor(user.name)
    for row in (await db.exec(older)).all():
        await revoke_token(
            db, hub, row, actor=actor, owner=user, reason="Newer ones took its place."
        )


def _refused(
    hub: Hub, asked: Redeeming, code: OAuthCode, session: BrowserSession
) -> Redemption | None:
    now, client = hub.clock.now(), asked.client
    if now >= code.expires_at or now >= session.expires_at:
        return Redemption(refusal="the code is too old")
    mine = (code.client_id, code.server_id, code.service_id)
    if client is None or mine != (client.client_id, client.server_id, client.service_id):
        return Redemption(refusal="the code is for another client")
    if not asked.redirect_uri == code.redirect_uri == client.redirect_uri:
        return Redemption(refusal="the address of the answer is another", error="invalid_request")
    if asked.code_verifier and not code.challenge:
        # Somebody left the challenge out on the way here (RFC 9700 2.1.1).
        return Redemption(refusal="there is a code_verifier, and the code has no challenge")
    if code.challenge and not asked.code_verifier:
        return Redemption(refusal="code_verifier is missing", error="invalid_request")
    if code.challenge and not proves(asked.code_verifier, code.challenge, code.challenge_method):
        return Redemption(refusal="the code verifier does not fit")
    if not client.is_proxys:
        return None  # it proved its secret, and has no part in the browser's session
    if not code.challenge:
        return Redemption(refusal="the code has no challenge")
    if asked.session_id is None:
        if not hub.settings.places.are_safe:
            return Redemption(refusal="the browser does not show its session")
    elif not hmac.compare_digest(digest(asked.session_id), code.session_hash):
        return Redemption(refusal="another browser asked for the code")
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

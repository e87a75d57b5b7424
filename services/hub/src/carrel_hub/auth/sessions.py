"""Signed-in browsers: one row each, and the cookies that lead to it."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlmodel import col, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import Request
from starlette.responses import Response

from carrel_hub.auth.browser import cookie_jar
from carrel_hub.auth.cookies import CookieJar, session_id, single_cookie
from carrel_hub.auth.digest import MAX_SECRET_LENGTH, digest, new_secret
from carrel_hub.auth.signing import Signer
from carrel_hub.context import Hub
from carrel_hub.db.models import BrowserSession, OAuthCode, ShareCode, SignInLink, Token, User
from carrel_hub.events import HUB_ACTOR, record, user_actor
from carrel_hub.routing.changes import revoke
from carrel_shared.wire.routes import Revocation

MOST_SESSIONS = 100
"""In how many browsers somebody may be signed in."""

_PURPOSE = "hub-login"
_SESSION_ID_PURPOSE = "session-id"


@dataclass(frozen=True, slots=True)
class NewSession:
    """A session that was just made; the only moment its secret is known."""

    row: BrowserSession
    secret: str


def browser_session_id(signer: Signer, secret: str) -> str:
    """Return the session id that servers and proxies see (32 hex digits).

    It follows from the login secret, so a browser that lost it, or had another one put there by
    a neighbour, is given the same again.
    """
    return digest(signer.mac(_SESSION_ID_PURPOSE, secret))[:32]


def login_secret(request: Request, signer: Signer) -> str | None:
    """Return the secret in the browser's login cookie, if the hub signed it."""
    return signed_secret(single_cookie(request, cookie_jar(request).login_cookie), signer)


def signed_secret(value: str | None, signer: Signer) -> str | None:
    """Return the secret in a login cookie's value, if the hub signed it."""
    if value is None or len(value) > 2 * MAX_SECRET_LENGTH + 1:
        return None
    return signer.verify(_PURPOSE, value)


async def find_session(db: AsyncSession, secret_hash: str) -> tuple[BrowserSession, User] | None:
    """Return a session with its user, whether it is good now or not."""
    return (
        await db.exec(
            select(BrowserSession, User)
            .join(User, col(User.id) == col(BrowserSession.user_id))
            .where(BrowserSession.secret_hash == secret_hash)
        )
    ).first()


async def begin_session(
    db: AsyncSession,
    hub: Hub,
    signer: Signer,
    user: User,
    *,
    how: str,
    password_mark: str = "",
) -> NewSession:
    """Sign a browser in, with fresh secrets whatever it had before.

    Args:
        how: `password` or `link`, for the history.
        password_mark: What is kept of the password (`auth.shared_passwords`).
    """
    now = hub.clock.now()
    await purge_expired(db, now=now)
    await _end_surplus(db, user, at=now)
    secret = new_secret()
    assert user.id is not None  # noqa: S101 - it came from the database
    row = BrowserSession(
        secret_hash=digest(secret),
        session_hash=digest(browser_session_id(signer, secret)),
        user_id=user.id,
        password_mark=password_mark,
        created=now,
        expires_at=now + timedelta(days=hub.settings.auth.session_days),
    )
    db.add(row)
    user.last_activity = now
    db.add(user)
    actor = user_actor(user.name)
    record(db, "session.signed_in", actor, actor, at=now, data={"how": how})
    await db.flush()
    return NewSession(row, secret)


def remember(
    response: Response, jar: CookieJar, signer: Signer, new: NewSession, *, now: datetime
) -> None:
    """Give the browser the cookies of its session."""
    seconds = max(int((new.row.expires_at - now).total_seconds()), 1)
    jar.set_login(response, signer.sign(_PURPOSE, new.secret), max_age=seconds)
    jar.set_session_id(response, browser_session_id(signer, new.secret), max_age=seconds)


def restore_session_id(
    request: Request,
    response: Response,
    jar: CookieJar,
    signer: Signer,
    row: BrowserSession,
    *,
    now: datetime,
) -> bool:
    """Give a signed-in browser its session id again if it lost it. Return whether it had it."""
    sent = session_id(request)
    if sent is not None and digest(sent) == row.session_hash:
        return True
    secret = login_secret(request, signer)
    if secret is not None:
        seconds = max(int((row.expires_at - now).total_seconds()), 1)
        jar.set_session_id(response, browser_session_id(signer, secret), max_age=seconds)
    return False


async def end_session(
    db: AsyncSession,
    row: BrowserSession,
    user: User,
    *,
    at: datetime,
    actor: str | None = None,
    reason: str = "",
) -> None:
    """Sign a browser out: its session, its codes and tokens, and every proxy's memory of it.

    After the commit call `Wakeups.notify()`.

    Args:
        actor: Who does; the user without it.
        reason: Why, for the history, where it was not the user's own wish.
    """
    await db.exec(delete(OAuthCode).where(col(OAuthCode.session_hash) == row.session_hash))
    await db.exec(delete(Token).where(col(Token.session_hash) == row.session_hash))
    await db.exec(delete(BrowserSession).where(col(BrowserSession.id) == row.id))
    who = user_actor(user.name)
    record(db, "session.signed_out", actor or who, who, at=at, message=reason)
    await revoke(db, Revocation(session_hash=row.session_hash))


async def end_other_sessions(
    db: AsyncSession, user: User, kept: BrowserSession | None, *, at: datetime
) -> int:
    """Sign somebody out in every browser but one, and return in how many they were.

    After the commit call `Wakeups.notify()`.
    """
    rows = (await db.exec(select(BrowserSession).where(BrowserSession.user_id == user.id))).all()
    others = [row for row in rows if kept is None or row.id != kept.id]
    for row in others:
        await end_session(db, row, user, at=at)
    return len(others)


async def _end_surplus(db: AsyncSession, user: User, *, at: datetime) -> None:
    """Make room for one more session: those that began first end."""
    latest = select(BrowserSession).where(BrowserSession.user_id == user.id)
    latest = latest.order_by(col(BrowserSession.id).desc()).offset(MOST_SESSIONS - 1)
    for row in (await db.exec(latest)).all():
        reason = f"{user.name} signed in {MOST_SESSIONS} times since."
        await end_session(db, row, user, at=at, actor=HUB_ACTOR, reason=reason)


async def purge_expired(db: AsyncSession, *, now: datetime) -> None:
    """Drop what nobody can use any more, so that tables do not grow for ever."""
    long_ago = now - timedelta(days=1)
    for table in (BrowserSession, OAuthCode, ShareCode, SignInLink, Token):
        await db.exec(delete(table).where(col(table.expires_at) < long_ago))

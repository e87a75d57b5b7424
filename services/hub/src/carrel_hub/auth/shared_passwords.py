"""Sign-ins end with the shared password they were made with.

Many people know a shared password, and it is changed because one of them should not. Each session
keeps a keyed hash of the password it was made with; when a hub starts, those end whose password
is none any more that their user may sign in with.
"""

import structlog
from pydantic import SecretStr
from sqlmodel import col, or_, select
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.auth.rules import administrators_named
from carrel_hub.auth.sessions import end_session
from carrel_hub.auth.settings import AuthSettings
from carrel_hub.auth.signing import Signer, signer_for
from carrel_hub.context import Hub
from carrel_hub.db.models import BrowserSession, User
from carrel_hub.events import HUB_ACTOR

log = structlog.get_logger(__name__)

SHARED = "shared-password"
REASON = "the password it was made with is no longer good"
_PURPOSE = "shared-password"


def mark_of(signer: Signer, settings: AuthSettings, password: str) -> str:
    """Return what a session keeps of the right password; empty where none is shared."""
    return signer.mac(_PURPOSE, password) if settings.authenticator == SHARED else ""


def good_marks(signer: Signer, settings: AuthSettings, name: str) -> frozenset[str]:
    """Return the marks of every password that a user may sign in with."""
    if settings.authenticator != SHARED:
        return frozenset()
    passwords: list[SecretStr | None] = [settings.user_password, *settings.group_passwords.values()]
    if name in administrators_named(settings):
        passwords = [settings.admin_password]
    return frozenset(
        mark_of(signer, settings, one.get_secret_value())
        for one in passwords
        if one is not None and one.get_secret_value()
    )


async def end_stale_sessions(session: AsyncSession, hub: Hub) -> None:
    """End the sign-ins whose password is no longer one of their user's.

    Where passwords are shared, those end as well of which nobody knows how they were made.
    """
    settings, at = hub.settings.auth, hub.clock.now()
    doubtful = [col(BrowserSession.password_mark) != ""]
    if settings.authenticator == SHARED:
        doubtful.append(col(BrowserSession.password_mark).is_(None))
    statement = (
        select(BrowserSession, User)
        .join(User, col(User.id) == col(BrowserSession.user_id))
        .where(or_(*doubtful), col(BrowserSession.expires_at) > at)
    )
    rows = (await session.exec(statement)).all()
    if not rows:
        return
    signer, ended = signer_for(hub.settings.state_dir), 0
    for row, user in rows:
        if row.password_mark not in good_marks(signer, settings, user.name):
            await end_session(session, row, user, at=at, actor=HUB_ACTOR, reason=REASON)
            ended += 1
    if ended:
        log.warning("sign_ins_ended", count=ended, reason=REASON)

"""One-time sign-in links for the person at the console.

Whoever has the link and sits at this machine is signed in by one press of a button. It is stored
as a hash, lasts ten minutes, and is used by one statement, so of many presses one counts.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlmodel import col, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.auth.digest import MAX_SECRET_LENGTH, digest, new_secret
from carrel_hub.context import Hub
from carrel_hub.db.models import SignInLink, User
from carrel_hub.events import CONSOLE_ACTOR, record, user_actor

LINK_LIFETIME = timedelta(minutes=10)
PATH = "sign-in/"
"""Below the hub's own path; the secret follows. It must be kept out of logs and referrers."""


@dataclass(frozen=True, slots=True)
class NewLink:
    """A link that was just made; the only moment its secret is known.

    Attributes:
        path: Below the public address, with a slash in front.
    """

    path: str
    expires_at: datetime

    def __repr__(self) -> str:
        return f"NewLink(expires_at={self.expires_at!r})"


async def create_link(db: AsyncSession, hub: Hub, user: User) -> NewLink:
    """Make a link that signs `user` in once. It is part of the caller's transaction."""
    now = hub.clock.now()
    secret = new_secret()
    assert user.id is not None  # noqa: S101 - it came from the database
    link = SignInLink(
        secret_hash=digest(secret), user_id=user.id, created=now, expires_at=now + LINK_LIFETIME
    )
    db.add(link)
    record(db, "link.created", CONSOLE_ACTOR, user_actor(user.name), at=now)
    await db.flush()
    return NewLink(f"{hub.settings.hub_prefix}{PATH}{secret}", link.expires_at)


async def link_user(db: AsyncSession, hub: Hub, secret: str) -> User | None:
    """Return whom a link would sign in now, without using it."""
    if len(secret) > MAX_SECRET_LENGTH:
        return None
    return (
        await db.exec(
            select(User)
            .join(SignInLink, col(SignInLink.user_id) == col(User.id))
            .where(
                SignInLink.secret_hash == digest(secret),
                col(SignInLink.used_at).is_(None),
                col(SignInLink.expires_at) > hub.clock.now(),
                col(User.disabled).is_(False),
            )
        )
    ).first()


async def use_link(db: AsyncSession, hub: Hub, secret: str) -> User | None:
    """Use a link up and return whom it signs in; None if it is used, too old or unknown."""
    user = await link_user(db, hub, secret)
    if user is None:
        return None
    now = hub.clock.now()
    used = await db.exec(
        update(SignInLink)
        .where(
            col(SignInLink.secret_hash) == digest(secret),
            col(SignInLink.used_at).is_(None),
            col(SignInLink.expires_at) > now,
        )
        .values(used_at=now)
        .execution_options(synchronize_session=False)
    )
    if used.rowcount != 1:
        return None
    actor = user_actor(user.name)
    record(db, "link.used", actor, actor, at=now)
    return user

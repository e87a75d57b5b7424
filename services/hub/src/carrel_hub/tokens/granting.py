"""What a new token may be given: never more than its owner has, nor than whoever asks for it."""

from collections.abc import Sequence

from sqlmodel import col, func, or_, select
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.auth.rights import Rights, narrowed, owner_rights
from carrel_hub.auth.subjects import Subject
from carrel_hub.context import Hub
from carrel_hub.db.models import Token, User
from carrel_hub.errors import ForbiddenError, InvalidRequestError
from carrel_hub.rbac import (
    Scope,
    expand,
    identify_scopes,
    is_administrator,
    is_within,
    resolve,
    roles,
)

MOST_TOKENS = 1000
"""How many tokens somebody may have that were asked for, beside those of servers and services."""


async def require_room(session: AsyncSession, hub: Hub, user: User) -> None:
    """Refuse one more token for a user who has as many as may be.

    Raises:
        InvalidRequestError: That is so.
    """
    good = or_(col(Token.expires_at).is_(None), col(Token.expires_at) > hub.clock.now())
    asked_for = [col(Token.client_id).is_(None), col(Token.server_id).is_(None)]
    count = select(func.count()).select_from(Token).where(Token.user_id == user.id, good)
    if (await session.exec(count.where(*asked_for))).one() >= MOST_TOKENS:
        raise InvalidRequestError(
            f"{user.name} has {MOST_TOKENS} tokens, which is as many as may be; revoke one first"
        )


async def granted_scopes(
    session: AsyncSession, hub: Hub, subject: Subject, user: User, wanted: Sequence[str] | None
) -> list[str]:
    """Return the scopes a new token is stored with.

    Whoever asks gets the secret, so it never may more than they may themselves. For somebody else,
    `inherit` of one who is no administrator means what the owner may today.

    Args:
        user: Whose token it becomes.
        wanted: None for what the role `token` holds, as far as whoever asks has it too.

    Raises:
        InvalidRequestError: The owner does not have all of them.
        ForbiddenError: Whoever asks does not.
    """
    scopes = hub.settings.role_book.scopes(roles.TOKEN) if wanted is None else wanted
    owned = await owner_rights(session, hub, user, also=[*scopes, *subject.scopes])
    if Scope.INHERIT not in scopes and (lacking := _not_owned(scopes, user, owned)):
        raise InvalidRequestError(
            f"{user.name} does not have all of these scopes; not {', '.join(lacking)}"
        )
    if lacking := _not_held(scopes, user, owned, subject):
        if wanted is None:  # nothing was asked for by name: then as much as can be given
            return sorted(narrowed(subject.scopes, user, owned))
        raise ForbiddenError(
            "A token cannot be given permissions that you do not have yourself; not"
            f" {', '.join(lacking)}"
        )
    if Scope.INHERIT in scopes and not (subject.is_user(user.name) or is_administrator(subject)):
        return sorted(narrowed(scopes, user, owned))
    return [*scopes]


def _not_owned(scopes: Sequence[str], user: User, owned: Rights) -> list[str]:
    return [
        text
        for text in scopes
        if not is_within(expand(resolve([text], user.name)), owned.scopes, owned.members)
    ]


def _not_held(scopes: Sequence[str], user: User, owned: Rights, subject: Subject) -> list[str]:
    """Return which scopes would let the token do what whoever asks may not."""
    known = identify_scopes(user.name)

    def fits(some: Sequence[str]) -> bool:
        effective = narrowed(some, user, owned)
        return is_within(effective - known, subject.scopes, owned.members)

    if fits(scopes):
        return []
    return [text for text in scopes if not fits([text])] or [*scopes]

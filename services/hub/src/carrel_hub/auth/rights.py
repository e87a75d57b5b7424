"""What somebody may do at this moment: roles, shares, group members, read in one transaction."""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.context import Hub
from carrel_hub.db.models import Service, Token, User
from carrel_hub.groups.membership import groups_of, members_for
from carrel_hub.rbac import Members, owner_scopes, service_scopes, token_scopes
from carrel_hub.shares.store import shared_scopes


@dataclass(frozen=True, slots=True)
class Rights:
    """Everything that somebody may do.

    Attributes:
        scopes: Expanded.
        members: Who is in the groups that matter for them.
    """

    scopes: frozenset[str]
    members: Members


async def owner_rights(
    db: AsyncSession, hub: Hub, owner: User | Service, also: Iterable[str] = ()
) -> Rights:
    """Return what a user or a service may do.

    Args:
        also: Scopes whose groups are looked up too.
    """
    book = hub.settings.role_book
    if isinstance(owner, Service):
        granted = book.granted_to_service(owner.name)
        scopes = service_scopes(owner.name, admin=owner.admin, granted=granted)
    else:
        groups: list[str] = []
        if book.names_groups and owner.id is not None:
            groups = (await groups_of(db, [owner.id])).get(owner.id, [])
        granted = book.granted_to_user(owner.name, groups)
        granted += await shared_scopes(db, owner)
        scopes = owner_scopes(owner.name, admin=owner.admin, granted=granted)
    return Rights(scopes, await members_for(db, [*scopes, *also]))


async def token_rights(db: AsyncSession, hub: Hub, token: Token, owner: User | Service) -> Rights:
    """Return what a token may do: what it was granted, cut down to what its owner may do now."""
    owned = await owner_rights(db, hub, owner, also=token.scopes)
    return Rights(narrowed(token.scopes, owner, owned), owned.members)


def narrowed(granted: Iterable[str], owner: User | Service, owned: Rights) -> frozenset[str]:
    """Return what a token with these scopes may do in its owner's hands. Pure."""
    if isinstance(owner, Service):
        return token_scopes(granted, owned.scopes, service=owner.name, members=owned.members)
    return token_scopes(granted, owned.scopes, name=owner.name, members=owned.members)

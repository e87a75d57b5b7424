"""The one function that says yes or no. Nothing is allowed that no scope allows."""

from collections.abc import Set
from dataclasses import dataclass
from typing import Protocol

from carrel_hub.errors import ForbiddenError, NotFoundError
from carrel_hub.rbac.scopes import Scope

NO_CREDENTIALS = "Missing or invalid credentials."
NOT_FOUND = "No access to resources or resources not found"


class Actor(Protocol):
    """Whoever asks."""

    @property
    def scopes(self) -> Set[str]:
        """Everything it may do, expanded."""
        ...

    @property
    def is_anonymous(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Resource:
    """What is asked for: a user, or one of the user's servers (the empty name is the default)."""

    user: str
    server: str | None = None


def may(actor: Actor, scope: Scope, resource: Resource | None = None) -> bool:
    """Whether `actor` may do this.

    Args:
        scope: What is to be done.
        resource: To what. None asks for the right over everything: a scope that is held for some
            things only is then not enough.
    """
    if actor.is_anonymous:
        return False
    if scope in actor.scopes:
        return True
    if resource is None:
        return False
    if f"{scope}!user={resource.user}" in actor.scopes:
        return True
    return (
        resource.server is not None
        and f"{scope}!server={resource.user}/{resource.server}" in actor.scopes
    )


def authorise(actor: Actor, scope: Scope, resource: Resource | None = None) -> None:
    """Raise unless `actor` may do this.

    Whoever holds the scope for other things only is told the same for what exists and what does
    not.

    Raises:
        ForbiddenError: Nobody is asking, or somebody without that scope.
        NotFoundError: The scope is held, but not for this.
    """
    if actor.is_anonymous:
        raise ForbiddenError(NO_CREDENTIALS)
    if may(actor, scope, resource):
        return
    if resource is not None and any(held.startswith(f"{scope}!") for held in actor.scopes):
        raise NotFoundError(NOT_FOUND)
    raise ForbiddenError(f"This needs a permission you do not have: requires any of [{scope}]")

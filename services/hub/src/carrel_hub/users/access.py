"""Who may call an endpoint that any of several scopes opens."""

from collections.abc import Sequence

from carrel_hub.errors import ForbiddenError, NotFoundError
from carrel_hub.rbac import Actor, Resource, Scope, may
from carrel_hub.rbac.decisions import NO_CREDENTIALS, NOT_FOUND


def require_any(actor: Actor, scopes: Sequence[Scope], resource: Resource) -> None:
    """Raise unless one of `scopes` covers `resource`.

    Whoever holds one of them for other things only hears the same of what exists and what does
    not.

    Raises:
        ForbiddenError: Nobody is asking, or somebody without any of these scopes.
        NotFoundError: One is held, but not for this.
    """
    if actor.is_anonymous:
        raise ForbiddenError(NO_CREDENTIALS)
    if any(may(actor, scope, resource) for scope in scopes):
        return
    if any(held.partition("!")[0] in scopes for held in actor.scopes):
        raise NotFoundError(NOT_FOUND)
    names = ", ".join(scopes)
    raise ForbiddenError(f"This needs a permission you do not have: requires any of [{names}]")

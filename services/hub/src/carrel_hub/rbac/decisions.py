"""The one function that says yes or no. Nothing is allowed that no scope allows."""

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Protocol

from carrel_hub.errors import ForbiddenError, NotFoundError
from carrel_hub.rbac.resolve import Members, admin_scopes, covers, is_within
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
    def members(self) -> Members:
        """Who is in the groups that its scopes name, as of this request."""
        ...

    @property
    def is_anonymous(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Resource:
    """What is asked for: a user, or one of the user's servers (the empty name is the default)."""

    user: str
    server: str | None = None

    @property
    def target(self) -> str:
        """The filter that means exactly this."""
        return f"user={self.user}" if self.server is None else f"server={self.user}/{self.server}"


@dataclass(frozen=True, slots=True)
class GroupResource:
    """A group is asked for; not its members."""

    name: str

    @property
    def target(self) -> str:
        """The filter that means exactly this."""
        return f"group={self.name}"


@dataclass(frozen=True, slots=True)
class ServiceResource:
    """A service is asked for."""

    name: str

    @property
    def target(self) -> str:
        """The filter that means exactly this."""
        return f"service={self.name}"


Asked = Resource | GroupResource | ServiceResource
"""What can be asked for."""


@dataclass(frozen=True, slots=True)
class Extent:
    """Over which of many things a scope is held.

    Attributes:
        all: Over everything; the rest is empty then.
        users: Over the users of these names.
        groups: Over these groups, or their members.
        services: Over these services.
    """

    all: bool = False
    users: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    services: frozenset[str] = frozenset()


def may(actor: Actor, scope: Scope, resource: Asked | None = None) -> bool:
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
    return covers(actor.scopes, f"{scope}!{resource.target}", actor.members)


def authorise(actor: Actor, scope: Scope, resource: Asked | None = None) -> None:
    """Raise unless `actor` may do this.

    Whoever holds the scope for other things only is told the same for what exists and what does
    not.

    Raises:
        ForbiddenError: Nobody is asking, or somebody without that scope.
        NotFoundError: The scope is held, but not for this.
    """
    authorise_any(actor, [scope], resource)


def authorise_any(
    actor: Actor,
    scopes: Sequence[Scope],
    resource: Asked | None = None,
) -> None:
    """Raise unless one of `scopes` allows this; else like `authorise`."""
    if actor.is_anonymous:
        raise ForbiddenError(NO_CREDENTIALS)
    if any(may(actor, scope, resource) for scope in scopes):
        return
    if resource is not None and any(held.partition("!")[0] in scopes for held in actor.scopes):
        raise NotFoundError(NOT_FOUND)
    names = ", ".join(scopes)
    raise ForbiddenError(f"This needs a permission you do not have: requires any of [{names}]")


def extent(actor: Actor, scope: Scope, kinds: Set[str]) -> Extent:
    """Return over what a list may go, for an endpoint that leaves out the rest.

    Args:
        kinds: The filters that make sense there: `user`, `group`, `service`.

    Raises:
        ForbiddenError: The scope is not held, or with another filter.
    """
    if actor.is_anonymous:
        raise ForbiddenError(NO_CREDENTIALS)
    if scope in actor.scopes:
        return Extent(all=True)
    found: dict[str, set[str]] = {}
    for text in actor.scopes:
        name, _, target = text.partition("!")
        if name == scope:
            kind, _, value = target.partition("=")
            found.setdefault(kind, set()).add(value)
    if not found:
        raise ForbiddenError(f"This needs a permission you do not have: requires any of [{scope}]")
    if not found.keys() <= kinds:
        wrong = ", ".join(sorted(found.keys() - kinds))
        raise ForbiddenError(f"Here {scope} cannot be limited by {wrong}")
    return Extent(
        users=frozenset(found.get("user", ())),
        groups=frozenset(found.get("group", ())),
        services=frozenset(found.get("service", ())),
    )


def is_administrator(actor: Actor) -> bool:
    """Whether `actor` may do everything an administrator may: only then it may make one."""
    return not actor.is_anonymous and is_within(admin_scopes(), actor.scopes)

"""What may be shared of a server. Pure.

A share keeps names of scopes; each is held for the one server, whatever it is called by then.
"""

from collections.abc import Iterable

from carrel_hub.errors import InvalidRequestError
from carrel_hub.rbac import Resource, RoleBook, Scope
from carrel_hub.rbac.custom import is_custom_name

SHAREABLE = frozenset(
    {
        Scope.ACCESS_SERVERS,
        Scope.READ_SERVERS,
        Scope.START_SERVERS,
        Scope.DELETE_SERVERS,
        Scope.SERVERS,
        Scope.ADMIN_SERVER_STATE,
        Scope.ADMIN_SERVERS,
        Scope.READ_SHARES,
        Scope.SHARES,
    }
)
"""What is about a server, beside custom scopes. Anything else says nothing for one."""

DEFAULT = (str(Scope.ACCESS_SERVERS),)


def pinned(names: Iterable[str], server: Resource) -> list[str]:
    """Return what the names of a share mean: scopes over that server."""
    return sorted(f"{name}!{server.target}" for name in names)


def shared_names(scopes: Iterable[str], server: Resource, book: RoleBook) -> list[str]:
    """Return the names of scopes that a request wants to share of a server.

    Args:
        scopes: With a filter to that server, or with none, which means the same here.

    Raises:
        InvalidRequestError: One does not exist, is filtered to anything else, or is not about
            servers.
    """
    found: dict[str, None] = {}
    for text in scopes:
        if not book.knows(text):
            raise InvalidRequestError(f"There is no scope {text[:100]!r}")
        name, bang, target = text.partition("!")
        if bang and target != server.target:
            raise InvalidRequestError(
                f"Only {server.target!r} can be shared here, not {target[:300]!r}"
            )
        if name not in SHAREABLE and not is_custom_name(name):
            raise InvalidRequestError(f"{name} is not about a server, so it cannot be shared")
        found[name] = None
    return sorted(name for name in book.full(found))

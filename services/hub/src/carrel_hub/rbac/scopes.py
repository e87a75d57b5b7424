"""The vocabulary of permissions, in the names JupyterHub's clients know, and what each includes.

A scope as text is a name, or a name with one filter: `servers!user=alice`,
`access:servers!server=alice/`. Held without a filter it covers everything.
"""

from collections.abc import Iterable
from enum import StrEnum

from carrel_hub.rbac.custom import is_custom_name


class Scope(StrEnum):
    """One kind of permission."""

    INHERIT = "inherit"
    """On a token: exactly what its owner may do at that moment."""
    SELF = "self"
    """On a user: the scopes over that user."""
    ADMIN_UI = "admin-ui"
    ADMIN_USERS = "admin:users"
    ADMIN_AUTH_STATE = "admin:auth_state"
    USERS = "users"
    DELETE_USERS = "delete:users"
    LIST_USERS = "list:users"
    READ_USERS = "read:users"
    READ_USERS_NAME = "read:users:name"
    READ_USERS_GROUPS = "read:users:groups"
    READ_USERS_ACTIVITY = "read:users:activity"
    USERS_ACTIVITY = "users:activity"
    READ_ROLES = "read:roles"
    READ_ROLES_USERS = "read:roles:users"
    READ_ROLES_SERVICES = "read:roles:services"
    READ_ROLES_GROUPS = "read:roles:groups"
    ADMIN_SERVERS = "admin:servers"
    ADMIN_SERVER_STATE = "admin:server_state"
    SERVERS = "servers"
    READ_SERVERS = "read:servers"
    START_SERVERS = "start:servers"
    DELETE_SERVERS = "delete:servers"
    TOKENS = "tokens"
    READ_TOKENS = "read:tokens"
    ADMIN_GROUPS = "admin:groups"
    GROUPS = "groups"
    READ_GROUPS = "read:groups"
    READ_GROUPS_NAME = "read:groups:name"
    LIST_GROUPS = "list:groups"
    DELETE_GROUPS = "delete:groups"
    ADMIN_SERVICES = "admin:services"
    LIST_SERVICES = "list:services"
    READ_SERVICES = "read:services"
    READ_SERVICES_NAME = "read:services:name"
    READ_HUB = "read:hub"
    PROXY = "proxy"
    SHUTDOWN = "shutdown"
    READ_METRICS = "read:metrics"
    ACCESS_SERVERS = "access:servers"
    ACCESS_SERVICES = "access:services"
    SHARES = "shares"
    READ_SHARES = "read:shares"
    USERS_SHARES = "users:shares"
    READ_USERS_SHARES = "read:users:shares"
    GROUPS_SHARES = "groups:shares"
    READ_GROUPS_SHARES = "read:groups:shares"


_INCLUDES: dict[str, tuple[Scope, ...]] = {
    Scope.ADMIN_USERS: (
        Scope.ADMIN_AUTH_STATE,
        Scope.USERS,
        Scope.READ_ROLES_USERS,
        Scope.DELETE_USERS,
    ),
    Scope.USERS: (Scope.READ_USERS, Scope.LIST_USERS, Scope.USERS_ACTIVITY),
    Scope.LIST_USERS: (Scope.READ_USERS_NAME,),
    Scope.READ_USERS: (
        Scope.READ_USERS_NAME,
        Scope.READ_USERS_GROUPS,
        Scope.READ_USERS_ACTIVITY,
    ),
    Scope.USERS_ACTIVITY: (Scope.READ_USERS_ACTIVITY,),
    Scope.READ_ROLES: (
        Scope.READ_ROLES_USERS,
        Scope.READ_ROLES_SERVICES,
        Scope.READ_ROLES_GROUPS,
    ),
    Scope.ADMIN_SERVERS: (Scope.ADMIN_SERVER_STATE, Scope.SERVERS),
    Scope.SERVERS: (Scope.READ_SERVERS, Scope.START_SERVERS, Scope.DELETE_SERVERS),
    Scope.READ_SERVERS: (Scope.READ_USERS_NAME,),
    Scope.TOKENS: (Scope.READ_TOKENS,),
    Scope.ADMIN_GROUPS: (Scope.GROUPS, Scope.READ_ROLES_GROUPS, Scope.DELETE_GROUPS),
    Scope.GROUPS: (Scope.READ_GROUPS, Scope.LIST_GROUPS),
    Scope.LIST_GROUPS: (Scope.READ_GROUPS_NAME,),
    Scope.READ_GROUPS: (Scope.READ_GROUPS_NAME,),
    Scope.ADMIN_SERVICES: (
        Scope.LIST_SERVICES,
        Scope.READ_SERVICES,
        Scope.READ_ROLES_SERVICES,
    ),
    Scope.LIST_SERVICES: (Scope.READ_SERVICES_NAME,),
    Scope.READ_SERVICES: (Scope.READ_SERVICES_NAME,),
    Scope.USERS_SHARES: (Scope.READ_USERS_SHARES,),
    Scope.GROUPS_SHARES: (Scope.READ_GROUPS_SHARES,),
    Scope.SHARES: (
        Scope.ACCESS_SERVERS,
        Scope.READ_SHARES,
        Scope.USERS_SHARES,
        Scope.GROUPS_SHARES,
    ),
}

SELF_SCOPES = (
    Scope.READ_USERS,
    Scope.READ_USERS_NAME,
    Scope.READ_USERS_GROUPS,
    Scope.READ_USERS_ACTIVITY,
    Scope.USERS_ACTIVITY,
    Scope.USERS_SHARES,
    Scope.READ_USERS_SHARES,
    Scope.READ_SHARES,
    Scope.SERVERS,
    Scope.READ_SERVERS,
    Scope.START_SERVERS,
    Scope.DELETE_SERVERS,
    Scope.TOKENS,
    Scope.READ_TOKENS,
    Scope.ACCESS_SERVERS,
)
"""What everybody may do with what is their own; each is filtered to the user."""

ADMIN_SCOPES = (
    Scope.ADMIN_UI,
    Scope.ADMIN_USERS,
    Scope.ADMIN_SERVERS,
    Scope.ADMIN_SERVICES,
    Scope.TOKENS,
    Scope.ADMIN_GROUPS,
    Scope.LIST_SERVICES,
    Scope.READ_SERVICES,
    Scope.READ_HUB,
    Scope.PROXY,
    Scope.SHUTDOWN,
    Scope.ACCESS_SERVICES,
    Scope.ACCESS_SERVERS,
    Scope.READ_ROLES,
    Scope.READ_METRICS,
    Scope.SHARES,
)
"""What the role `admin` holds, over everything."""

FILTERS = frozenset({"user", "group", "server", "service"})
"""The kinds of filters. As `!user` alone, one means the owner of whoever holds it."""

_NAMES = frozenset(str(scope) for scope in Scope)


def is_scope(text: str) -> bool:
    """Whether this is a scope, with a filter that has a meaning or with none.

    A custom one need not be defined: that is what `RoleBook.knows` tells.
    """
    name, bang, target = text.partition("!")
    if name not in _NAMES and not is_custom_name(name):
        return False
    if not bang:
        return True
    kind, equals, value = target.partition("=")
    return kind in FILTERS and bool(value) == bool(equals) and name not in _METASCOPES


def is_about(text: str, user: str) -> bool:
    """Whether a scope is filtered to that user, or to a server of theirs."""
    kind, _, value = text.partition("!")[2].partition("=")
    return value == user if kind == "user" else kind == "server" and value.startswith(f"{user}/")


_METASCOPES = (Scope.SELF, Scope.INHERIT)


def expand(scopes: Iterable[str]) -> frozenset[str]:
    """Return `scopes` with everything they include, each with the filter it was held with.

    A filter on a server leaves out what is said of users: `read:servers!server=x/` does not say
    who x is. What is no scope is dropped, never widened. What custom ones include was added where
    they came in (`RoleBook.full`).
    """
    found: set[str] = set()
    todo = list(scopes)
    while todo:
        text = todo.pop()
        name, bang, target = text.partition("!")
        if text in found or not is_scope(text):
            continue
        found.add(text)
        for included in _INCLUDES.get(name, ()):
            if target.startswith("server=") and included.startswith("read:user"):
                continue
            todo.append(f"{included}{bang}{target}")
    return frozenset(found)

"""Roles: named sets of scopes, and who has them. Pure.

Roles come from the settings, so every replica has the same ones and nothing at run time changes
them. Four are always there: `user`, which everybody has; `admin`, for those who are marked so;
`server`, for the token of a server; `token`, for tokens that ask for nothing in particular.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from carrel_hub.rbac.custom import CustomScope, is_custom_name, with_subscopes
from carrel_hub.rbac.scopes import ADMIN_SCOPES, Scope, is_about, is_scope

USER, ADMIN, SERVER, TOKEN = "user", "admin", "server", "token"

DEFAULT_SCOPES: dict[str, tuple[str, ...]] = {
    USER: (Scope.SELF,),
    ADMIN: ADMIN_SCOPES,
    SERVER: (f"{Scope.USERS_ACTIVITY}!user", f"{Scope.ACCESS_SERVERS}!server"),
    TOKEN: (Scope.INHERIT,),
}
"""The roles that are always there, with what they hold unless the settings say otherwise."""


@dataclass(frozen=True, slots=True)
class Role:
    """A set of scopes with those who have it, by name."""

    name: str
    scopes: tuple[str, ...]
    users: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    services: frozenset[str] = frozenset()


class RoleBook:
    """All roles of an installation.

    Args:
        roles: Those of the settings; one that has the name of a role that is always there takes
            its place.
        custom: The custom scopes that are defined, by name.
    """

    def __init__(
        self, roles: Iterable[Role] = (), custom: Mapping[str, CustomScope] | None = None
    ) -> None:
        self.custom = custom or {}
        found = {name: Role(name, scopes) for name, scopes in DEFAULT_SCOPES.items()}
        found |= {role.name: replace(role, scopes=tuple(self.full(role.scopes))) for role in roles}
        self._roles = found
        self._given = [role for name, role in found.items() if name not in DEFAULT_SCOPES]
        self.names_groups = any(role.groups for role in self._given)
        """Whether it matters in which groups somebody is."""

    def __contains__(self, name: object) -> bool:
        return name in self._roles

    def knows(self, text: str) -> bool:
        """Whether there is such a scope here, custom ones included."""
        name = text.partition("!")[0]
        return is_scope(text) and (name in self.custom or not is_custom_name(name))

    def full(self, scopes: Iterable[str]) -> list[str]:
        """Return scopes with what custom ones among them include."""
        return with_subscopes(scopes, self.custom)

    def scopes(self, name: str) -> tuple[str, ...]:
        """Return what a role holds."""
        return self._roles[name].scopes

    def of_user(self, name: str, *, admin: bool) -> list[str]:
        """Return the names of a user's own roles, in order."""
        own = [role.name for role in self._given if name in role.users]
        return sorted([*own, USER, *([ADMIN] if admin else [])])

    def of_group(self, name: str) -> list[str]:
        """Return the names of the roles that a group gives its members."""
        return sorted(role.name for role in self._given if name in role.groups)

    def of_service(self, name: str, *, admin: bool) -> list[str]:
        """Return the names of a service's roles."""
        own = [role.name for role in self._given if name in role.services]
        return sorted([*own, *([ADMIN] if admin else [])])

    def granted_to_user(self, name: str, groups: Sequence[str] = ()) -> list[str]:
        """Return what a user's roles hold, own and by groups, `admin` left out."""
        held = [
            role for role in self._given if name in role.users or not role.groups.isdisjoint(groups)
        ]
        return [scope for role in (self._roles[USER], *held) for scope in role.scopes]

    def speaks_of(self, name: str) -> bool:
        """Whether a role holds something over a user of this name, who may not exist yet."""
        return any(is_about(text, name) for role in self._given for text in role.scopes)

    def granted_by_name(self, name: str) -> list[str]:
        """Return what the roles hold that name this user: what a name alone brings."""
        return [scope for role in self._given if name in role.users for scope in role.scopes]

    def granted_by_group(self, name: str) -> list[str]:
        """Return what the roles of a group hold."""
        return [scope for role in self._given if name in role.groups for scope in role.scopes]

    def granted_to_service(self, name: str) -> list[str]:
        """Return what a service's roles hold, `admin` left out."""
        return [scope for role in self._given if name in role.services for scope in role.scopes]

"""The shape of a group in the REST API, cut to what the caller may see. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from carrel_hub.db.models import Group
from carrel_hub.rbac import Actor, GroupResource, RoleBook, Scope, may

GROUP_KEYS: Mapping[Scope, tuple[str, ...]] = {
    Scope.READ_GROUPS: ("kind", "name", "properties", "users"),
    Scope.READ_GROUPS_NAME: ("kind", "name"),
    Scope.READ_ROLES_GROUPS: ("kind", "name", "roles"),
}
"""Which keys of a group each scope shows."""


def group_model(
    group: Group, users: Sequence[str], actor: Actor, roles: RoleBook
) -> dict[str, Any]:
    """Return a group as `actor` may see it; empty when nothing may be seen."""
    resource = GroupResource(group.name)
    keys = {
        key for scope, shown in GROUP_KEYS.items() if may(actor, scope, resource) for key in shown
    }
    whole = {
        "kind": "group",
        "name": group.name,
        "roles": roles.of_group(group.name),
        "users": list(users),
        "properties": group.properties,
    }
    return {key: value for key, value in whole.items() if key in keys}

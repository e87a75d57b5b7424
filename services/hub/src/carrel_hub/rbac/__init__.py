"""Who may do what: scopes, what they include, and the one function that decides. Pure."""

from carrel_hub.rbac.decisions import (
    Actor,
    Extent,
    GroupResource,
    Resource,
    ServiceResource,
    authorise,
    authorise_any,
    extent,
    is_administrator,
    may,
)
from carrel_hub.rbac.resolve import (
    NO_MEMBERS,
    Members,
    identify_scopes,
    intersect,
    is_within,
    owner_scopes,
    resolve,
    self_scopes,
    service_identify_scopes,
    service_scopes,
    token_scopes,
)
from carrel_hub.rbac.roles import Role, RoleBook
from carrel_hub.rbac.scopes import Scope, expand, is_about, is_scope

__all__ = [
    "NO_MEMBERS",
    "Actor",
    "Extent",
    "GroupResource",
    "Members",
    "Resource",
    "Role",
    "RoleBook",
    "Scope",
    "ServiceResource",
    "authorise",
    "authorise_any",
    "expand",
    "extent",
    "identify_scopes",
    "intersect",
    "is_about",
    "is_administrator",
    "is_scope",
    "is_within",
    "may",
    "owner_scopes",
    "resolve",
    "self_scopes",
    "service_identify_scopes",
    "service_scopes",
    "token_scopes",
]

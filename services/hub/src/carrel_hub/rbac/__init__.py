"""Who may do what: scopes, what they include, and the one function that decides. Pure."""

from carrel_hub.rbac.decisions import Actor, Resource, authorise, may
from carrel_hub.rbac.resolve import (
    intersect,
    oauth_token_scopes,
    owner_scopes,
    self_scopes,
    token_scopes,
)
from carrel_hub.rbac.scopes import Scope

__all__ = [
    "Actor",
    "Resource",
    "Scope",
    "authorise",
    "intersect",
    "may",
    "oauth_token_scopes",
    "owner_scopes",
    "self_scopes",
    "token_scopes",
]

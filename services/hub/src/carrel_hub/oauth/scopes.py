"""What a client asks a person for, and what it gets (contract 5.2). Pure."""

from collections.abc import Sequence

from carrel_hub.oauth.clients import Client
from carrel_hub.oauth.requests import Problem
from carrel_hub.rbac import (
    Members,
    Resource,
    RoleBook,
    expand,
    identify_scopes,
    is_within,
    resolve,
)

IDENTIFY = "identify"
"""What clients of old ask for to know who somebody is; every token of a client has that."""


def always_granted(client: Client, user: str) -> list[str]:
    """Return what every token of a client has: whose it is, and that one door."""
    return [client.access_scope, *sorted(identify_scopes(user))]


def asked_for(
    client: Client, user: str, requested: str | None, book: RoleBook
) -> list[str] | Problem:
    """Return the scopes that a request asks for, concrete, or what is wrong with them.

    Args:
        requested: The parameter `scope`: names of scopes or, as of old, of roles, between spaces.
            Without it, all that the client may ask for.
    """
    allowed = _concrete(client, user, client.allowed_scopes)
    if requested is None:
        return allowed
    if not requested.strip():
        return Problem("invalid_scope", "scope is empty")
    wanted: list[str] = []
    for text in requested.split():
        if text == IDENTIFY:
            continue
        if book.knows(text):
            wanted += book.full([text])
        elif text in book:
            wanted += book.scopes(text)
        else:
            return Problem("invalid_scope", "there is no such scope")
    concrete = _concrete(client, user, wanted)
    every = expand([*allowed, *always_granted(client, user)])
    if len(concrete) < len(set(wanted)) or not is_within(expand(concrete), every):
        return Problem("invalid_scope", "this client may not ask for all of these scopes")
    given = set(always_granted(client, user))
    return [text for text in concrete if text not in given]


def grantable(asked: Sequence[str], held: frozenset[str], members: Members) -> list[str]:
    """Return those of the scopes asked for that whoever grants them has."""
    return [text for text in asked if is_within(expand([text]), held, members)]


def as_asked(scope: str, user: str) -> str:
    """Return a scope as clients write it: one's own things are `!user`."""
    return scope.removesuffix(f"={user}") if scope.endswith(f"!user={user}") else scope


def _concrete(client: Client, user: str, scopes: Sequence[str]) -> list[str]:
    resource = client.resource
    server = f"{resource.user}/{resource.server}" if isinstance(resource, Resource) else None
    service = None if isinstance(resource, Resource) else resource.name
    found = [text for one in scopes for text in sorted(resolve([one], user, server, service))]
    return list(dict.fromkeys(found))

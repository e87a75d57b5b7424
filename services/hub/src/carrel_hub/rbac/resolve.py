"""What somebody may do: scopes of a user, and of a token in the hands of its owner. Pure."""

from collections.abc import Iterable

from carrel_hub.rbac.scopes import ADMIN_SCOPES, SELF_SCOPES, Scope, expand


def self_scopes(name: str) -> frozenset[str]:
    """Return what everybody may do with what is their own."""
    return frozenset(f"{scope}!user={name}" for scope in SELF_SCOPES)


def owner_scopes(name: str, *, admin: bool) -> frozenset[str]:
    """Return everything a user may do, expanded."""
    return reduce(self_scopes(name) | (expand(ADMIN_SCOPES) if admin else frozenset()))


def oauth_token_scopes(owner: str, server_owner: str, server_name: str) -> list[str]:
    """Return what a token says that a browser got for one server: who it is, and that door."""
    return [
        f"{Scope.ACCESS_SERVERS}!server={server_owner}/{server_name}",
        f"{Scope.READ_USERS_NAME}!user={owner}",
        f"{Scope.READ_USERS_GROUPS}!user={owner}",
    ]


def token_scopes(granted: Iterable[str], owner: frozenset[str]) -> frozenset[str]:
    """Return what a token may do now: what it was granted, cut down to what its owner may do.

    Args:
        granted: As stored with the token.
        owner: The owner's scopes at this moment, expanded.
    """
    granted = list(granted)
    if Scope.INHERIT in granted:
        return owner
    return intersect(expand(granted), owner)


def intersect(one: frozenset[str], other: frozenset[str]) -> frozenset[str]:
    """Return what both allow. The narrower filter wins; a server lies within its user."""
    both = {text for text in one if covers(other, text)}
    both |= {text for text in other if covers(one, text)}
    return reduce(frozenset(both))


def covers(held: frozenset[str], text: str) -> bool:
    """Whether `held` contains `text`, or something wider."""
    name, _, target = text.partition("!")
    if text in held or name in held:
        return True
    kind, _, value = target.partition("=")
    return kind == "server" and f"{name}!user={value.rpartition('/')[0]}" in held


def reduce(scopes: frozenset[str]) -> frozenset[str]:
    """Drop what an unfiltered scope of the same name covers already."""
    return frozenset(s for s in scopes if "!" not in s or s.partition("!")[0] not in scopes)

"""What somebody may do: scopes of a user, and of a token in the hands of its owner. Pure."""

from collections.abc import Iterable, Mapping, Set

from carrel_hub.rbac.scopes import ADMIN_SCOPES, SELF_SCOPES, Scope, expand

Members = Mapping[str, Set[str]]
"""Names of the users in each group that matters here."""

NO_MEMBERS: Members = {}


def self_scopes(name: str) -> frozenset[str]:
    """Return what everybody may do with what is their own."""
    return frozenset(f"{scope}!user={name}" for scope in SELF_SCOPES)


def identify_scopes(name: str) -> frozenset[str]:
    """Return what every token may know: whose it is."""
    return frozenset(
        f"{scope}!user={name}" for scope in (Scope.READ_USERS_NAME, Scope.READ_USERS_GROUPS)
    )


def admin_scopes() -> frozenset[str]:
    """Return everything the role `admin` holds, expanded."""
    return expand(ADMIN_SCOPES)


def service_identify_scopes(name: str) -> frozenset[str]:
    """Return what every token of a service may know: whose it is."""
    return frozenset({f"{Scope.READ_SERVICES_NAME}!service={name}"})


def owner_scopes(
    name: str, *, admin: bool, granted: Iterable[str] = (Scope.SELF,)
) -> frozenset[str]:
    """Return everything a user may do, expanded.

    Args:
        granted: What the user's roles hold, `admin` left out.
    """
    own = expand(resolve(granted, name))
    return reduce(own | (admin_scopes() if admin else frozenset()))


def service_scopes(name: str, *, admin: bool, granted: Iterable[str] = ()) -> frozenset[str]:
    """Return everything a service may do, expanded: what its roles hold."""
    own = expand(resolve(granted, "", service=name))
    return reduce(own | (admin_scopes() if admin else frozenset()))


def resolve(
    granted: Iterable[str], name: str, server: str | None = None, service: str | None = None
) -> frozenset[str]:
    """Return scopes with `self` and the filters that point at their holder made concrete.

    What cannot be resolved is dropped, never widened.

    Args:
        name: The owner; empty for nobody in particular.
        server: `NAME/SERVER` of the client a token was issued to.
        service: The service that is that client, or that owns the token.
    """
    targets = {"!user": f"!user={name}" if name else None, "!server": None, "!service": None}
    if server is not None:
        targets["!server"] = f"!server={server}"
    if service is not None:
        targets["!service"] = f"!service={service}"
    found: set[str] = set()
    for text in granted:
        if text == Scope.SELF:
            found |= self_scopes(name) if name else frozenset()
            continue
        scope, bang, target = text.partition("!")
        concrete = targets.get(bang + target, bang + target if "=" in target or not bang else None)
        if concrete is not None:
            found.add(f"{scope}{concrete}")
    return frozenset(found)


def token_scopes(
    granted: Iterable[str],
    owner: frozenset[str],
    *,
    name: str = "",
    server: str | None = None,
    service: str | None = None,
    members: Members = NO_MEMBERS,
) -> frozenset[str]:
    """Return what a token may do now: what it was granted, cut down to what its owner may do.

    Args:
        granted: As stored with the token.
        owner: The owner's scopes at this moment, expanded.
        name: The owner, whom every token may name. Without it nothing is added.
        server: `NAME/SERVER` of the client it was issued to.
        service: The service that owns it, where no user does; every token may name its owner.
        members: Who is in the groups that these scopes name; others count as empty.
    """
    granted = list(granted)
    if Scope.INHERIT in granted:
        return owner
    wanted = expand(resolve(granted, name, server, service))
    if name:
        wanted |= identify_scopes(name)
    if service is not None:
        named = service_identify_scopes(service)
        return intersect(reduce(wanted), owner, members) | named
    return intersect(reduce(wanted), owner, members)


def intersect(
    one: frozenset[str], other: frozenset[str], members: Members = NO_MEMBERS
) -> frozenset[str]:
    """Return what both allow. The narrower filter wins: server in user, user in group."""
    both = {text for text in one if covers(other, text, members)}
    both |= {text for text in other if covers(one, text, members)}
    both |= _met_in_groups(one, other, members) | _met_in_groups(other, one, members)
    return reduce(frozenset(both))


def is_within(some: Iterable[str], held: Set[str], members: Members = NO_MEMBERS) -> bool:
    """Whether whoever holds `held` may do all of `some`."""
    return all(covers(held, text, members) for text in some)


def covers(held: Set[str], text: str, members: Members = NO_MEMBERS) -> bool:
    """Whether `held` contains `text`, or something wider."""
    name, _, target = text.partition("!")
    if text in held or name in held:
        return True
    kind, _, value = target.partition("=")
    if kind not in ("server", "user"):
        return False
    user = value.rpartition("/")[0] if kind == "server" else value
    return f"{name}!user={user}" in held or any(
        f"{name}!group={group}" in held for group, names in members.items() if user in names
    )


def reduce(scopes: frozenset[str]) -> frozenset[str]:
    """Drop what an unfiltered scope of the same name covers already."""
    return frozenset(s for s in scopes if "!" not in s or s.partition("!")[0] not in scopes)


def _met_in_groups(one: Set[str], other: Set[str], members: Members) -> set[str]:
    """Users who are in a group of one side and in a different group of the other."""
    found: set[str] = set()
    for group, names in members.items():
        for text in one:
            scope, bang, target = text.partition("!")
            if not bang or target != f"group={group}" or text in other:
                continue
            found |= {
                f"{scope}!user={user}"
                for user in names
                if any(
                    user in theirs and f"{scope}!group={their_group}" in other
                    for their_group, theirs in members.items()
                )
            }
    return found

"""What a scope opens, and what nothing opens."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carrel_hub.errors import ForbiddenError, NotFoundError
from carrel_hub.rbac import (
    Extent,
    GroupResource,
    Members,
    Resource,
    Scope,
    authorise,
    expand,
    extent,
    identify_scopes,
    intersect,
    is_administrator,
    is_scope,
    is_within,
    may,
    owner_scopes,
    resolve,
    self_scopes,
    token_scopes,
)


@dataclass(frozen=True)
class Somebody:
    scopes: frozenset[str]
    members: Members = field(default_factory=dict)
    is_anonymous: bool = False


NOBODY = Somebody(frozenset(), is_anonymous=True)


def door(owner: str, of: str, server: str) -> list[str]:
    """Return what a token has that a browser got for one server."""
    return [f"access:servers!server={of}/{server}", *sorted(identify_scopes(owner))]


ALICE = Somebody(owner_scopes("alice", admin=False))
ROOT = Somebody(owner_scopes("root-of-hub", admin=True))
RIGHTS_OVER_USERS = [
    Scope.SERVERS, Scope.START_SERVERS, Scope.DELETE_SERVERS, Scope.READ_SERVERS,
    Scope.ACCESS_SERVERS, Scope.READ_USERS, Scope.READ_USERS_NAME, Scope.TOKENS,
]  # fmt: skip


@pytest.mark.parametrize("scope", RIGHTS_OVER_USERS)
def test_people_may_do_with_their_own_and_administrators_with_everybodys(scope: Scope) -> None:
    assert may(ALICE, scope, Resource("alice", ""))
    assert may(ALICE, scope, Resource("alice", "project"))
    assert not may(ALICE, scope, Resource("bob", ""))
    assert not may(ALICE, scope, Resource("alice2", ""))
    assert not may(ALICE, scope)
    assert may(ROOT, scope, Resource("bob", ""))
    assert not may(NOBODY, scope, Resource("alice", ""))


@pytest.mark.parametrize("scope", sorted(set(Scope) - {Scope.INHERIT, Scope.SELF}))
def test_nobody_may_do_anything(scope: Scope) -> None:
    assert not may(NOBODY, scope)
    assert not may(Somebody(expand([scope]), is_anonymous=True), scope, Resource("alice"))


def test_the_right_over_some_is_not_the_right_over_all() -> None:
    """A list or a creation has no object, so a filtered scope is not enough for it."""
    for held in ("admin:users!user=alice", "users!user=alice", "list:users!server=alice/"):
        assert not may(Somebody(expand([held])), Scope.LIST_USERS)


def test_a_right_to_a_server_is_no_right_to_its_user() -> None:
    held = Somebody(expand(["servers!server=alice/project"]))
    assert may(held, Scope.START_SERVERS, Resource("alice", "project"))
    assert not may(held, Scope.START_SERVERS, Resource("alice", ""))
    assert not may(held, Scope.START_SERVERS, Resource("alice"))
    assert not may(held, Scope.READ_USERS_NAME, Resource("alice", "project"))


def test_refusals_do_not_tell_what_exists() -> None:
    with pytest.raises(ForbiddenError, match="credentials"):
        authorise(NOBODY, Scope.SERVERS, Resource("alice"))
    with pytest.raises(NotFoundError):
        authorise(ALICE, Scope.SERVERS, Resource("bob"))
    with pytest.raises(ForbiddenError, match=r"requires any of \[shutdown\]"):
        authorise(ALICE, Scope.SHUTDOWN)
    authorise(ALICE, Scope.SERVERS, Resource("alice"))


def test_whoami_lists_what_clients_look_for() -> None:
    assert "access:servers!user=alice" in ALICE.scopes
    assert "access:servers" in ROOT.scopes
    assert "access:servers!user=root-of-hub" not in ROOT.scopes, "the wider one says it"
    assert "admin:users" in ROOT.scopes
    assert "read:users:name" in ROOT.scopes
    assert "self" not in ALICE.scopes


def test_a_token_never_exceeds_its_owner() -> None:
    owner = owner_scopes("alice", admin=False)
    assert token_scopes(["inherit"], owner) == owner
    assert token_scopes(["admin:users", "servers"], owner) == self_scopes("alice") & {
        f"{scope}!user=alice"
        for scope in ("servers", "read:servers", "start:servers", "delete:servers",
                      "read:users:name", "read:users:groups", "read:users:activity",
                      "read:users", "users:activity")
    }  # fmt: skip
    assert token_scopes(["access:servers!server=bob/"], owner) == frozenset()
    assert token_scopes([], owner) == frozenset()
    assert token_scopes(["nonsense", "custom:x!user=alice", ""], owner) == frozenset()


def test_a_browsers_token_opens_one_server() -> None:
    granted = door("alice", "alice", "")
    held = Somebody(token_scopes(granted, owner_scopes("alice", admin=False)))
    assert may(held, Scope.ACCESS_SERVERS, Resource("alice", ""))
    assert not may(held, Scope.ACCESS_SERVERS, Resource("alice", "project"))
    assert not may(held, Scope.START_SERVERS, Resource("alice", ""))
    visiting = token_scopes(door("alice", "bob", ""), owner_scopes("alice", admin=True))
    assert may(Somebody(visiting), Scope.ACCESS_SERVERS, Resource("bob", ""))
    demoted = token_scopes(door("alice", "bob", ""), owner_scopes("alice", admin=False))
    assert not may(Somebody(demoted), Scope.ACCESS_SERVERS, Resource("bob", ""))


names = st.sampled_from([str(s) for s in Scope] + ["nonsense"])
filters = st.sampled_from(
    ["", "!user=a", "!user=b", "!server=a/", "!server=a/s", "!server=b/", "!group=g", "!group=h"]
)
memberships = st.dictionaries(
    st.sampled_from(["g", "h"]), st.frozensets(st.sampled_from(["a", "b"]))
)
scopes = st.frozensets(st.builds("{}{}".format, names, filters), max_size=6)
targets = st.sampled_from(
    [
        None,
        Resource("a"),
        Resource("a", ""),
        Resource("a", "s"),
        Resource("b", ""),
        GroupResource("g"),
        GroupResource("h"),
    ]
)


@given(scopes, scopes, names.filter(lambda n: n != "nonsense"), targets, memberships)
def test_an_intersection_allows_what_both_allow(
    one: frozenset[str],
    other: frozenset[str],
    name: str,
    target: Resource | GroupResource | None,
    members: Members,
) -> None:
    one, other, scope = expand(one), expand(other), Scope(name)
    both = all(may(Somebody(held, members), scope, target) for held in (one, other))
    met = intersect(one, other, members)
    assert may(Somebody(met, members), scope, target) == both
    assert met == intersect(other, one, members)
    assert is_within(met, one, members)
    assert is_within(met, other, members)


@given(scopes)
def test_expanding_twice_changes_nothing_and_loses_nothing(held: frozenset[str]) -> None:
    once = expand(held)
    assert expand(once) == once
    assert {text for text in held if is_scope(text)} <= once


INCLUDED = {
    "admin:users": "admin:auth_state users read:roles:users delete:users read:users list:users"
    " users:activity read:users:name read:users:groups read:users:activity",
    "list:users": "read:users:name",
    "users:activity": "read:users:activity",
    "read:roles": "read:roles:users read:roles:services read:roles:groups",
    "admin:servers": "admin:server_state servers read:servers start:servers delete:servers"
    " read:users:name",
    "tokens": "read:tokens",
    "admin:groups": "groups read:roles:groups delete:groups read:groups list:groups"
    " read:groups:name",
    "admin:services": "list:services read:services read:roles:services read:services:name",
    "shares": "access:servers read:shares users:shares groups:shares read:users:shares"
    " read:groups:shares",
    "shutdown": "",
    "access:servers": "",
}


@pytest.mark.parametrize("scope", INCLUDED)
@pytest.mark.parametrize("target", ["", "!user=a", "!group=g"])
def test_what_a_scope_includes(scope: str, target: str) -> None:
    wanted = {scope, *INCLUDED[scope].split()}
    assert expand([scope + target]) == {name + target for name in wanted}


def test_a_right_over_a_group_is_one_over_its_members_and_nobody_else() -> None:
    held = Somebody(expand(["servers!group=lab"]), {"lab": {"alice"}})
    assert may(held, Scope.START_SERVERS, Resource("alice", ""))
    assert may(held, Scope.READ_SERVERS, Resource("alice"))
    assert not may(held, Scope.START_SERVERS, Resource("bob", ""))
    assert not may(held, Scope.START_SERVERS)
    assert not may(Somebody(held.scopes), Scope.START_SERVERS, Resource("alice", ""))
    managing = Somebody(expand(["groups!group=lab", "groups!user=alice"]))
    assert may(managing, Scope.READ_GROUPS, GroupResource("lab"))
    assert not may(managing, Scope.READ_GROUPS, GroupResource("other"))


def test_filters_that_point_at_the_holder() -> None:
    assert resolve(["servers!user"], "alice") == {"servers!user=alice"}
    assert resolve(["access:servers!server"], "a", "bob/x") == {"access:servers!server=bob/x"}
    assert resolve(["servers!server", "access:services!service", "a!group"], "alice") == frozenset()
    assert resolve(["servers!user", "self"], "") == frozenset()
    assert resolve(["self"], "alice") == self_scopes("alice")
    assert resolve(["shutdown"], "alice") == {"shutdown"}


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("servers", True),
        ("servers!user", True),
        ("servers!user=alice", True),
        ("access:servers!server=alice/", True),
        ("inherit", True),
        ("inherit!user=alice", False),
        ("all", False),
        ("servers!", False),
        ("servers!user=", False),
        ("servers!colour=red", False),
        ("", False),
    ],
)
def test_what_is_a_scope(text: str, good: bool) -> None:
    assert is_scope(text) is good
    assert (text in expand([text])) is good


def test_every_token_may_say_whose_it_is() -> None:
    owner = owner_scopes("alice", admin=False)
    assert token_scopes(["read:servers!user"], owner, name="alice") == {
        "read:servers!user=alice", "read:users:name!user=alice", "read:users:groups!user=alice",
    }  # fmt: skip
    assert token_scopes(["admin:users!user=bob"], owner, name="alice") == {
        "read:users:name!user=alice", "read:users:groups!user=alice",
    }  # fmt: skip


def test_a_list_goes_over_what_the_scope_is_held_for() -> None:
    everything = extent(ROOT, Scope.LIST_USERS, {"user"})
    assert everything.all
    some = Somebody(expand(["list:users!user=a", "list:users!user=b", "users!group=g"]))
    found = extent(some, Scope.LIST_USERS, {"user", "group"})
    assert found == Extent(users=frozenset("ab"), groups=frozenset("g"))
    for nobody in (NOBODY, ALICE, Somebody(expand(["users!server=a/"])), some):
        with pytest.raises(ForbiddenError):
            extent(nobody, Scope.LIST_USERS, {"user"})


def test_only_whoever_may_do_everything_is_an_administrator() -> None:
    assert is_administrator(ROOT)
    assert not is_administrator(ALICE)
    assert not is_administrator(NOBODY)
    for lost in ROOT.scopes - {"read:users:name"}:
        assert is_administrator(Somebody(ROOT.scopes - {lost})) == (
            lost not in owner_scopes("x", admin=True)
        )

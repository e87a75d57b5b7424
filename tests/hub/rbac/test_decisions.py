"""What a scope opens, and what nothing opens."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carrel_hub.errors import ForbiddenError, NotFoundError
from carrel_hub.rbac import (
    Resource,
    Scope,
    authorise,
    intersect,
    may,
    oauth_token_scopes,
    owner_scopes,
    self_scopes,
    token_scopes,
)
from carrel_hub.rbac.scopes import expand


@dataclass(frozen=True)
class Somebody:
    scopes: frozenset[str]
    is_anonymous: bool = False


NOBODY = Somebody(frozenset(), is_anonymous=True)
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


@pytest.mark.parametrize("scope", set(Scope) - {Scope.INHERIT, Scope.SELF})
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
    granted = oauth_token_scopes("alice", "alice", "")
    held = Somebody(token_scopes(granted, owner_scopes("alice", admin=False)))
    assert may(held, Scope.ACCESS_SERVERS, Resource("alice", ""))
    assert not may(held, Scope.ACCESS_SERVERS, Resource("alice", "project"))
    assert not may(held, Scope.START_SERVERS, Resource("alice", ""))
    visiting = token_scopes(
        oauth_token_scopes("alice", "bob", ""), owner_scopes("alice", admin=True)
    )
    assert may(Somebody(visiting), Scope.ACCESS_SERVERS, Resource("bob", ""))
    demoted = token_scopes(
        oauth_token_scopes("alice", "bob", ""), owner_scopes("alice", admin=False)
    )
    assert not may(Somebody(demoted), Scope.ACCESS_SERVERS, Resource("bob", ""))


names = st.sampled_from([str(s) for s in Scope] + ["nonsense"])
filters = st.sampled_from(["", "!user=a", "!user=b", "!server=a/", "!server=a/s", "!server=b/"])
scopes = st.frozensets(st.builds("{}{}".format, names, filters), max_size=6)
targets = st.sampled_from(
    [None, Resource("a"), Resource("a", ""), Resource("a", "s"), Resource("b", "")]
)


@given(scopes, scopes, names.filter(lambda n: n != "nonsense"), targets)
def test_an_intersection_allows_what_both_allow(
    one: frozenset[str], other: frozenset[str], name: str, target: Resource | None
) -> None:
    one, other, scope = expand(one), expand(other), Scope(name)
    both = may(Somebody(one), scope, target) and may(Somebody(other), scope, target)
    assert may(Somebody(intersect(one, other)), scope, target) == both
    assert intersect(one, other) == intersect(other, one)

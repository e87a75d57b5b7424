"""Hosts of users: no two the same, none somebody else's, and only those followed."""

import re
import string

import pytest
from hub.world import make_settings
from hypothesis import given
from hypothesis import strategies as st

from carrel_hub.auth.names import InvalidNameError, normalise_name
from carrel_hub.places import Places, label_of

PLACES = Places("/jup/", "https://hub.test:8443")
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

PARTS = [*"ab0-_.@~ü%ß", "ss", "--", "xn--", "u-"]
names = st.lists(st.sampled_from(PARTS), min_size=1, max_size=12).map("".join)


@given(names, names)
def test_no_two_users_share_a_host(one: str, other: str) -> None:
    assert (label_of(one) == label_of(other)) == (one == other)


@given(st.one_of(names, st.text(min_size=1, max_size=200)))
def test_a_label_is_one(name: str) -> None:
    assert LABEL.fullmatch(label_of(name))


@pytest.mark.parametrize("name", ["alice", "a-b", "a1", "x" * 63, "1a"])
def test_a_name_that_is_a_label_is_kept(name: str) -> None:
    assert label_of(name) == name


@pytest.mark.parametrize("name", ["a--b", "123", "a_b", "a.b", "-a", "a-", "x" * 64, "zoë", "a@b"])
def test_another_is_told_by_a_hash(name: str) -> None:
    label = label_of(name)
    assert re.fullmatch(r"u-[a-z0-9]{0,8}--[0-9a-f]{20}", label)
    assert label_of(label) != label, "nobody can be called like it"


@given(names, names)
def test_no_service_shares_the_host_of_a_user_or_another_service(one: str, other: str) -> None:
    assert PLACES.service_host(one) != PLACES.host(other)
    assert (PLACES.service_host(one) == PLACES.service_host(other)) == (one == other)
    label = PLACES.service_host("x" * 63).partition(".")[0]
    assert LABEL.fullmatch(label)
    assert label.endswith("--service")


def test_no_users_name_is_the_label_of_another() -> None:
    for name in ("zoë", "a_b"):
        try:
            normalise_name(label_of(name))
        except InvalidNameError:
            continue
        assert label_of(label_of(name)) not in (label_of(name), name)


def test_without_domains_places_are_paths() -> None:
    shared = Places("/")
    assert shared.url("alice") == "/user/alice/"
    assert (shared.host("alice"), shared.hub_host, shared.user_hosts) == ("", "", "")
    assert shared.located("/user/alice/lab") == "/user/alice/lab"
    assert shared.is_hub("anything")
    assert not shared.is_users("https://alice.hub.test")


def test_with_domains_places_are_addresses() -> None:
    assert PLACES.url("alice", "s") == "https://alice.hub.test:8443/jup/user/alice/s/"
    assert PLACES.host("alice") == "alice.hub.test"
    assert PLACES.user_hosts == "*.hub.test"
    assert PLACES.user_origins == "https://*.hub.test:8443"


@pytest.mark.parametrize(
    ("path", "where"),
    [
        ("/jup/user/alice/lab?x=1#y", "https://alice.hub.test:8443/jup/user/alice/lab?x=1#y"),
        ("/jup/user/alice", "https://alice.hub.test:8443/jup/user/alice"),
        ("/jup/user/alice?x", "https://alice.hub.test:8443/jup/user/alice?x"),
        ("/jup/hub/home", "/jup/hub/home"),
        ("/jup/services/x/y?z", "https://x--service.hub.test:8443/jup/services/x/y?z"),
        ("/user/alice/", "/user/alice/"),
        ("/jup/user//alice", "/jup/user//alice"),
        ("/jup/user/%61lice/", "/jup/user/%61lice/"),
    ],
)
def test_a_path_is_found_where_it_is(path: str, where: str) -> None:
    assert PLACES.located(path) == where


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("hub.test:8443", True),
        ("HUB.test.", True),
        ("hub.test", True),
        ("alice.hub.test", False),
        ("evilhub.test", False),
        ("hub.test.evil", False),
        ("", False),
    ],
)
def test_the_hubs_host_is_compared_whole(host: str, own: bool) -> None:
    assert PLACES.is_hub(host) is own


@pytest.mark.parametrize(
    ("origin", "users"),
    [
        ("https://alice.hub.test:8443", True),
        ("https://u-zo--0123456789abcdef0123.hub.test:8443", True),
        ("http://alice.hub.test:8443", False),
        ("https://alice.hub.test", False),
        ("https://a.alice.hub.test:8443", False),
        ("https://hub.test:8443", False),
        ("https://.hub.test:8443", False),
        ("https://evil.test/alice.hub.test:8443", False),
        ("https://x@alice.hub.test:8443", False),
        ("https://alice.hub.test:8443.evil", False),
    ],
)
def test_only_users_origins_are_theirs(origin: str, users: bool) -> None:
    assert PLACES.is_users(origin) is users


@pytest.mark.parametrize(
    "public_url",
    [None, "https://localhost/", "https://127.0.0.1/", "https://[::1]/", "ftp://hub.test/", "x"],
)
def test_domains_need_a_name_to_be_below(public_url: str | None, tmp_path: object) -> None:
    with pytest.raises(ValueError, match="public_url"):
        make_settings(tmp_path, public_url=public_url, user_domains=True)  # type: ignore[arg-type]


def test_a_settings_name_is_read_in_any_case(tmp_path: object) -> None:
    settings = make_settings(
        tmp_path,  # type: ignore[arg-type]
        public_url="HTTPS://Hub.Example.org:8443/x/",
        user_domains=True,
    )
    assert settings.places.origin("alice") == "https://alice.hub.example.org:8443"
    for url in ("https://hub.example.org:443/", "http://hub.example.org:80/"):
        usual = make_settings(tmp_path, public_url=url, user_domains=True)  # type: ignore[arg-type]
        assert usual.places.hub_origin == url.rpartition(":")[0]
    assert set(string.ascii_uppercase).isdisjoint(settings.places.hub_origin)

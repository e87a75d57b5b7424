"""Routes: the longest prefix of whole segments, and no second reading of any path."""

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carrel_proxy.core.paths import below
from carrel_proxy.core.trie import RouteTrie
from carrel_proxy.errors import BadPathError, BadTargetError

ROUTES = ("/", "/user/alice/", "/user/alice/s1/", "/user/b%40c/", "/services/x/", "/user/%C3%A9/")


@pytest.fixture
def trie() -> RouteTrie[str]:
    trie: RouteTrie[str] = RouteTrie()
    for prefix in ROUTES:
        trie.put(prefix.encode(), prefix)
    return trie


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/", "/"),
        ("/hub/home", "/"),
        ("/user/alice", "/user/alice/"),
        ("/user/alice/", "/user/alice/"),
        ("/user/alice/lab", "/user/alice/"),
        ("/user/alice/s1", "/user/alice/s1/"),
        ("/user/alice/s1/x", "/user/alice/s1/"),
        ("/user/alice/s10/x", "/user/alice/"),
        ("/user/ali%63e/", "/user/alice/"),
        ("/user/%61lice/x", "/user/alice/"),
        ("/user/b@c/", "/user/b%40c/"),
        ("/user/b%40c/", "/user/b%40c/"),
        ("/user/%c3%a9/", "/user/%C3%A9/"),
        ("/user/e%CC%81/", "/"),
        ("/user/alicex/", "/"),
        ("/user/alice./", "/"),
        ("/user/ALICE/", "/"),
        ("/user/alice;x=1/", "/"),
        ("/user/b%40c/..;/bob/", "/user/b%40c/"),
        ("/user/b@c/x%2f..%2f..%2fbob", "/user/b%40c/"),
        ("/user/b@c/a//b/../c", "/user/b%40c/"),
        ("/user/b@c/%00%ff%2", "/user/b%40c/"),
        ("/user/alice%EF%BC%8Fbob/", "/"),
        ("/__proto__/", "/"),
        ("/user/__class__/", "/"),
        ("/services/x/a/%2e%2e/b", "/services/x/"),
        ("/user/alice//x", "/user/alice/"),
        ("/user/alice/a%2Fb", "/user/alice/"),
        ("/user/alice/a%5cb/s1", "/user/alice/"),
        ("//elsewhere/user/alice/", "/"),
    ],
)
def test_the_longest_prefix_is_found(path: str, route: str, trie: RouteTrie[str]) -> None:
    assert trie.match(path.encode()) == route


@pytest.mark.parametrize(
    "path",
    [
        "/user/alice/../bob/",
        "/user/alice/%2e%2e/bob/",
        "/user/.%2e/bob/",
        "/user/./alice/",
        "/user//alice/",
        "//user/alice/",
        "/user/alice\\..\\bob",
        "/user%2falice/",
        "/user%2Falice/",
        "/user%5calice/",
        "/user/alice%00/",
        "/user/alice%ff/",
        "/user/alice%2",
        "/user/%u0041/",
        "/user/%C3/",
        "/..",
        "/%2e",
        "/user/b@c/x/../../y",
        "/user/b@c/a//../..",
        "/user/b@c/..\\..",
        "/services/x/%2E%2e",
        "/user/alice//s1/x",
        "/user/alice/%2Fs1",
        "/user/alice//./%731",
        "/user/alice/s1%5Cx",
        "/user/alice/x%2F..%2F..%2Fbob",
    ],
)
def test_what_could_be_read_as_another_path_is_refused(path: str, trie: RouteTrie[str]) -> None:
    with pytest.raises(BadPathError):
        trie.match(path.encode())


def test_a_name_with_a_backslash_is_found_encoded(trie: RouteTrie[str]) -> None:
    """As accounts of a Windows domain have one."""
    trie.put_at([b"user", b"dom\\eve"], "eve")
    assert trie.match(b"/user/dom%5Ceve/lab") == trie.match(b"/user/dom%5ceve") == "eve"
    assert trie.match(b"/user/dom%5Cadam/lab") == "/"
    with pytest.raises(BadPathError):
        trie.match(b"/user/alice%5Ceve/")
    assert trie.match(b"/user/dom\\eve/") == "/"  # a browser takes it for a slash


@pytest.mark.parametrize("prefix", ["", "user/", "/user", "//", "/a//b/", "/../", "/a b/", "/%2f/"])
def test_a_prefix_that_would_be_ambiguous_is_refused(prefix: str) -> None:
    with pytest.raises(BadTargetError):
        RouteTrie[str]().put(prefix.encode(), "x")


SEGMENT = st.sampled_from(["a", "b", "ab", "~", "%7E", "c"])
PREFIX = st.lists(SEGMENT, max_size=3).map(
    lambda parts: "".join(f"/{part}" for part in parts) + "/"
)


def plain(prefix: str) -> str:
    return prefix.replace("%7E", "~")


@given(st.lists(st.tuples(st.booleans(), PREFIX), max_size=30), PREFIX)
def test_it_agrees_with_a_list_of_prefixes(steps: list[tuple[bool, str]], path: str) -> None:
    trie: RouteTrie[str] = RouteTrie()
    model: set[str] = set()
    for add, prefix in steps:
        if add:
            trie.put(prefix.encode(), plain(prefix))
            model.add(plain(prefix))
        else:
            trie.remove(prefix.encode())
            model.discard(plain(prefix))
        fitting = [one for one in model if plain(path).startswith(one)]
        assert trie.match(path.encode()) == max(fitting, key=len, default=None)


ODD = st.sampled_from(["", "a", "b", "c", "%61", "%2F", "a%2fb", "%5Cb", "b%5c", "%2F%5Ca", "\\b"])
NAMES = st.lists(st.sampled_from("abc"), max_size=3).map(tuple)


@given(st.sets(NAMES, max_size=8), st.lists(ODD, min_size=1, max_size=5))
def test_who_drops_empty_segments_finds_the_same_route(
    routes: set[tuple[str, ...]], parts: list[str]
) -> None:
    trie: RouteTrie[tuple[str, ...]] = RouteTrie()
    for route in routes:
        trie.put_at([name.encode() for name in route], route)
    loose = unquote("/".join(parts)).replace("\\", "/").split("/")
    names = tuple(name for name in loose if name)
    fitting = [route for route in routes if names[: len(route)] == route]
    try:
        found = trie.match(("/" + "/".join(parts)).encode())
    except BadPathError:
        return
    assert found == max(fitting, key=len, default=None)


def test_an_empty_trie_covers_nothing() -> None:
    assert RouteTrie[str]().match(b"/a/b") is None


@pytest.mark.parametrize(
    ("path", "depth", "rest"),
    [
        ("/user/alice/lab/x", 2, b"lab/x"),
        ("/user/alice/", 2, b""),
        ("/user/alice", 2, None),
        ("/", 0, b""),
        ("/a//b", 1, b"/b"),
    ],
)
def test_what_follows_a_prefix(path: str, depth: int, rest: bytes | None) -> None:
    assert below(path.encode(), depth) == rest

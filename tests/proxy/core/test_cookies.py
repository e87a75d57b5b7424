"""Cookies between neighbours."""

import hashlib
from http.cookies import SimpleCookie

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carrel_proxy.core.cookies import (
    SESSION_COOKIE,
    Fence,
    confine_set_cookie,
    count_cookies,
    fenced_cookies,
    is_reserved,
    set_cookie,
    single_cookie,
)

FENCE = Fence(b"/user/alice/")
STOCK = Fence(b"/user/alice/", b"jupyterhub-user-alice")


@pytest.mark.parametrize(
    "name",
    [
        b"jupyterhub-hub-login",
        b"carrel-session-0",
        b"__Host-jupyterhub-hub-login",
        b"__secure-__Host-carrel-x",
        b" Carrel-X ",
        b"\x85carrel-x",
        b'"carrel-x',
    ],
)
def test_reserved_names(name: bytes) -> None:
    assert is_reserved(name)


@pytest.mark.parametrize(
    "name", [b"_xsrf", b"session", b"my-carrel-x", b"__Host-session", b"carrel"]
)
def test_other_names(name: bytes) -> None:
    assert not is_reserved(name)


@pytest.mark.parametrize(
    ("sent", "left"),
    [
        ([b"a=1; b=2"], b"a=1; b=2"),
        ([b"a=1; carrel-session-0=x; b=2"], b"a=1; b=2"),
        ([b"a=jupyterhub-x"], b"a=jupyterhub-x"),
        ([b"jupyterhub-session-id=1"], None),
        ([b"carrel-x"], None),
        ([b"a=1", b"b=2"], b"a=1; b=2"),
        ([], None),
    ],
)
def test_what_a_server_is_told(sent: list[bytes], left: bytes | None) -> None:
    assert fenced_cookies(sent, FENCE) == left


@pytest.mark.parametrize(
    ("sent", "value"),
    [
        ([b"x=1; s=good"], b"good"),
        ([b"s=a; s=a"], None),
        ([b"s=a", b"s=b"], None),
        ([b"xs=a; s =b"], b"b"),
        ([b"S=a"], None),
        ([b"s"], None),
        ([], None),
    ],
)
def test_two_of_one_reserved_name_are_none(sent: list[bytes], value: bytes | None) -> None:
    assert single_cookie(sent, b"s") == value


def test_cookies_are_counted() -> None:
    assert count_cookies([b"s=1; t=2", b"s"], b"s") == 2


@pytest.mark.parametrize(
    ("value", "confined"),
    [
        (b"a=1", b"a=1"),
        (b"a=1; Path=/; HttpOnly", b"a=1; HttpOnly; Path=/user/alice/"),
        (b"a=1;path=/user/alice/x;Secure", b"a=1; Secure; Path=/user/alice/x"),
        (b"a=1; Path=/user/alice", b"a=1; Path=/user/alice"),
        (b"a=1; Path=/user/alicex", b"a=1; Path=/user/alice/"),
        (b"a=1; Path=/user/alice/; Path=/", b"a=1; Path=/user/alice/"),
        (b"a=1; Path", b"a=1; Path=/user/alice/"),
        (b"a=1; DOMAIN=hub.test; Max-Age=5", b"a=1; Max-Age=5"),
        (b"carrel-x=1", None),
        (b"=jupyterhub-session-id=1", None),
        (b"jupyterhub-session-id", None),
        (b" ; Path=/", None),
    ],
)
def test_what_a_server_may_set(value: bytes, confined: bytes | None) -> None:
    assert confine_set_cookie(value, FENCE) == confined


@pytest.mark.parametrize(
    ("sent", "left"),
    [
        ("jupyterhub-user-alice=t; a=1", "a=1; jupyterhub-user-alice=t"),
        ("jupyterhub-user-alice-oauth-state=s", "jupyterhub-user-alice-oauth-state=s"),
        ("jupyterhub-user-alice-oauth-state-AbCdEfGh=s",) * 2,
        ("jupyterhub-user-alice-proj=t; jupyterhub-user-bob=t; a=1", "a=1"),
        ("jupyterhub-user-alice-oauth-state-proj=t", None),
        ("jupyterhub-hub-login=l; carrel-session-0=c", None),
        ("__Host-jupyterhub-user-alice=t; Jupyterhub-User-Alice=t", None),
        ('jupyterhub-user-alice=t; jupyterhub-user-alice=u; "jupyterhub-user-alice=v', None),
        ("jupyterhub-session-id=x; jupyterhub-session-id=x", None),
        ("jupyterhub-session-id=", None),
        ("jupyterhub-user-alice", None),
    ],
)
def test_a_stock_server_is_told_of_its_own_client_alone(sent: str, left: str | None) -> None:
    assert fenced_cookies([sent.encode()], STOCK) == (left.encode() if left is not None else None)


def test_a_stock_server_never_learns_the_session_itself() -> None:
    secret = b"5e55101d" * 4
    told = fenced_cookies([SESSION_COOKIE + b"=" + secret], STOCK)
    digest = hashlib.sha256(secret + b":" + STOCK.client_id).hexdigest()
    assert told == SESSION_COOKIE + b"=" + digest.encode()
    neighbour = Fence(b"/user/bob/", b"jupyterhub-user-bob")
    assert neighbour.session(secret) != STOCK.session(secret)
    assert fenced_cookies([SESSION_COOKIE + b"=" + secret], FENCE) is None


@pytest.mark.parametrize(
    ("value", "confined"),
    [
        (b"jupyterhub-user-alice=t; Path=/", b"jupyterhub-user-alice=t; Path=/user/alice/"),
        (b"jupyterhub-user-alice-oauth-state=s; Path=/user/alice/",) * 2,
        (b"jupyterhub-user-bob=t; Path=/user/alice/", None),
        (b"jupyterhub-session-id=x; Path=/user/alice/", None),
        (b"__Host-jupyterhub-user-alice=t; Path=/; Secure", None),
        (b'"jupyterhub-user-alice=t', None),
    ],
)
def test_what_a_stock_server_may_set(value: bytes, confined: bytes | None) -> None:
    assert confine_set_cookie(value, STOCK) == confined


def test_a_stock_server_with_a_host_of_its_own_may_bind_its_cookies_to_it() -> None:
    fence = Fence(b"/", b"jupyterhub-user-alice", own_host=True)
    own = b"__Host-jupyterhub-user-alice=t"
    assert confine_set_cookie(own + b"; Path=/; Secure", fence) == own + b"; Secure; Path=/"
    assert fenced_cookies([own + b"; __Host-jupyterhub-user-bob=t"], fence) == own
    assert fenced_cookies([own], STOCK) is None


PIECES = st.sampled_from(
    [
        *(
            "jupyterhub-user-alice",
            "jupyterhub-user-alice-proj",
            "jupyterhub-session-id",
            "carrel-",
        ),
        *("-oauth-state", "__Host-", "__Secure-", "__host-", "$Version", "session", "_xsrf", "sid"),
        *("=", ";", "; ", ",", " ", "\t", '"', "\\163", "\x85", "\xa0", "/", "Path", "Domain", "x"),
    ]
)
TEXTS = st.lists(PIECES, max_size=14).map("".join)


@given(texts=st.lists(TEXTS, max_size=3), stock=st.booleans())
def test_no_spelling_takes_a_reserved_cookie_across(texts: list[str], stock: bool) -> None:
    fence = STOCK if stock else FENCE
    told = fenced_cookies([text.encode("latin-1") for text in texts], fence) or b""
    for pair in told.split(b";"):
        name, _, value = pair.strip().partition(b"=")
        if is_reserved(name):
            assert fence.is_own(name) or name == SESSION_COOKIE, told
        if name == SESSION_COOKIE:
            assert len(value) == 64
    names = [pair.partition(b"=")[0].strip() for pair in told.split(b";")]
    for name in names:
        assert not is_reserved(name) or names.count(name) == 1, told


@given(texts=st.lists(TEXTS, max_size=3))
def test_what_is_not_reserved_passes_as_it_came(texts: list[str]) -> None:
    sent = b"; ".join(text.encode("latin-1") for text in texts)
    if not any(is_reserved(pair.partition(b"=")[0]) for pair in sent.split(b";")):
        told = fenced_cookies([sent], FENCE) or b""
        assert [p.strip(b" \t") for p in told.split(b";") if p.strip(b" \t")] == [
            p.strip(b" \t") for p in sent.split(b";") if p.strip(b" \t")
        ]


@given(value=TEXTS, stock=st.booleans())
def test_a_server_sets_nothing_outside_its_own(value: str, stock: bool) -> None:
    fence = STOCK if stock else FENCE
    confined = confine_set_cookie(value.encode("latin-1"), fence)
    if confined is None:
        return
    pair, *attributes = confined.split(b";")
    name = pair.partition(b"=")[0]
    assert name.strip()
    assert not is_reserved(name) or fence.is_own(name)
    for attribute in attributes:
        key, _, content = attribute.strip().partition(b"=")
        assert key.strip().lower() != b"domain"
        if key.strip().lower() == b"path":
            assert content.startswith(fence.prefix) or content == fence.prefix[:-1]


@pytest.mark.parametrize(
    ("sent", "left"),
    [
        (b"sid =x", b"sid =x"),
        (rb'sid="\163ecret"; carrel-x="\163"', rb'sid="\163ecret"'),
        (b"$Version=1; $Path=/; a=1; jupyterhub-hub-login=x", b"$Version=1; $Path=/; a=1"),
        (b"\x85__Host-jupyterhub-hub-login=x; a=1", b"a=1"),
        (b"\xa0carrel-session-0=x; \x85a=1", b"\x85a=1"),
        (b"=carrel-x; =; a=1", b"=carrel-x; =; a=1"),
        (b'a="1; jupyterhub-session-id=x"', b'a="1'),
    ],
)
def test_bytes_that_readers_disagree_on(sent: bytes, left: bytes) -> None:
    assert fenced_cookies([sent], FENCE) == left


def test_a_reader_of_the_standard_library_finds_no_reserved_name() -> None:
    told = fenced_cookies([rb'a="\152upyterhub-x"; jupyterhub-session-id="\141"; b=2'], FENCE)
    assert told is not None
    assert set(SimpleCookie(told.decode())) == {"a", "b"}


def test_our_own_are_out_of_reach_of_scripts() -> None:
    text = set_cookie("n", "v", path="/p/", max_age=5, secure=True)
    assert text == b"n=v; Path=/p/; Max-Age=5; HttpOnly; SameSite=Lax; Secure"

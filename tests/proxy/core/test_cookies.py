"""Cookies between neighbours."""

import pytest

from carrel_proxy.core.cookies import (
    confine_set_cookie,
    count_cookies,
    is_reserved,
    set_cookie,
    single_cookie,
    without_reserved,
)

PREFIX = b"/user/alice/"


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
    assert without_reserved(sent) == left


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
    assert confine_set_cookie(value, PREFIX) == confined


def test_our_own_are_out_of_reach_of_scripts() -> None:
    text = set_cookie("n", "v", path="/p/", max_age=5, secure=True)
    assert text == b"n=v; Path=/p/; Max-Age=5; HttpOnly; SameSite=Lax; Secure"

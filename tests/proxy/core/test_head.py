"""Heads: what may pass, and what exactly is read from it. Hostile ones are in the corpus."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carrel_proxy.core.head import (
    HeadLimits,
    check_partial,
    is_host,
    parse_request,
    parse_response,
)
from carrel_proxy.errors import BadRequestError, BadResponseError

LIMITS = HeadLimits()


def request(*lines: str, start: str = "GET / HTTP/1.1") -> bytes:
    return "\r\n".join([start, "Host: h", *lines, "", ""]).encode("latin-1")


def test_fields_are_sorted_into_plain_and_special() -> None:
    head = parse_request(
        request("Accept: a", "COOKIE:  a=1 ", "Cookie: b=2", "X-Forwarded-For: 1", "X_a: 1"),
        LIMITS,
    )
    assert head.plain == b"\r\nAccept: a"
    assert head.special == {
        b"cookie": [b"a=1", b"b=2"],
        b"x-forwarded-for": [b"1"],
        b"x_a": [b"1"],
    }
    assert head.value(b"accept") == b"a"
    assert head.value(b"cookie") is None


def test_the_same_fields_are_read_once() -> None:
    first = parse_request(request("Cookie: a=1"), LIMITS)
    again = parse_request(request("Cookie: a=1", start="POST /x HTTP/1.1"), LIMITS, b"", first)
    assert (again.method, again.target, again.host) == (b"POST", b"/x", b"h")
    assert again.special is first.special
    assert again.derived is first.derived


def test_what_is_worked_out_stays_small() -> None:
    head = parse_request(request(), LIMITS)
    for number in range(1000):
        assert head.remember(number, "worked out") == "worked out"
    assert 999 in head.derived
    assert len(head.derived) < 100


@pytest.mark.parametrize(
    ("lines", "start"),
    [
        (["Cookie: a=2"], "GET / HTTP/1.1"),
        (["Cookie: a=1"], "GET / HTTP/1.0"),
        ([], "GET / HTTP/1.1"),
    ],
)
def test_other_fields_are_read_anew(lines: list[str], start: str) -> None:
    first = parse_request(request("Cookie: a=1"), LIMITS)
    head, known = request(*lines, start=start), parse_request(request(*lines, start=start), LIMITS)
    again = parse_request(head, LIMITS, b"", first)
    assert again == known
    assert again.derived is not first.derived


@pytest.mark.parametrize(
    "line",
    ["GET / HTTP/1.2", "GET  / HTTP/1.1", "CONNECT h:1 HTTP/1.1", "GET http://other/ HTTP/1.1"],
)
def test_a_request_line_is_judged_each_time(line: str) -> None:
    first = parse_request(request("Cookie: a=1"), LIMITS)
    with pytest.raises(BadRequestError):
        parse_request(request("Cookie: a=1", start=line), LIMITS, b"", first)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("http://h/a?b", b"/a?b"),
        ("http://H", b"/"),
        ("https://h?x", b"/?x"),
        ("/http://other/", b"/http://other/"),
    ],
)
def test_an_absolute_target_becomes_a_path(target: str, expected: bytes) -> None:
    assert parse_request(request(start=f"GET {target} HTTP/1.1"), LIMITS).target == expected


@pytest.mark.parametrize(
    "target", ["*", "a", "http://", "http://other/", "ftp://h/", "/a#b", "h:1"]
)
def test_other_targets_are_refused(target: str) -> None:
    with pytest.raises(BadRequestError):
        parse_request(request(start=f"GET {target} HTTP/1.1"), LIMITS)


@pytest.mark.parametrize(
    "host", ["h", "h:80", "HUB.test.", "a_b", "127.0.0.1:1", "[::1]", "[::1]:8"]
)
def test_good_hosts(host: str) -> None:
    assert is_host(host.encode())


@pytest.mark.parametrize(
    "host",
    ["", "a,b", "u@h", "h:80:80", "h:0x50", "h:99999", "h:", "[::1", "[1]", "[::g]", "a/b", "h h"],
)
def test_bad_hosts(host: str) -> None:
    assert not is_host(host.encode())


@pytest.mark.parametrize(
    ("version", "lines", "keep"),
    [
        ("1.1", [], True),
        ("1.1", ["Connection: keep-alive, Close"], False),
        ("1.1", ["Connection: upgrade", "Connection: close"], False),
        ("1.0", [], False),
    ],
)
def test_whether_a_connection_is_kept(version: str, lines: list[str], *, keep: bool) -> None:
    head = parse_request(request(*lines, start=f"GET / HTTP/{version}"), LIMITS)
    assert head.keep_alive is keep


@pytest.mark.parametrize("value", ["100-continue, x", "x", "100-continue\r\nExpect: 100-continue"])
def test_an_unknown_expectation_is_a_417(value: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        parse_request(request(f"Expect: {value}"), LIMITS)
    assert caught.value.status == 417


def test_a_request_of_old_may_lack_its_host() -> None:
    head = parse_request(b"GET / HTTP/1.0\r\n\r\n", LIMITS, b"127.0.0.1:8000")
    assert head.host == b"127.0.0.1:8000"
    with pytest.raises(BadRequestError):
        parse_request(b"GET / HTTP/1.1\r\n\r\n", LIMITS, b"127.0.0.1:8000")


@given(st.binary(max_size=200))
def test_no_bytes_are_more_than_refused(data: bytes) -> None:
    for wire in (data, b"GET / HTTP/1.1\r\nHost: h\r\n" + data + b"\r\n\r\n"):
        try:
            check_partial(wire, LIMITS)
            parse_request(wire, LIMITS)
        except BadRequestError:
            pass
        with contextlib.suppress(BadResponseError):
            parse_response(b"HTTP/1.1 200 OK\r\n" + wire)


@given(
    st.lists(st.sampled_from([b"GET / HTTP/1.1", b"\r\n", b"A: b", b"\r", b"\n", b"x"]), max_size=9)
)
def test_a_head_that_may_still_come_is_not_refused_early(parts: list[bytes]) -> None:
    """Whatever is refused before its end would be refused at its end."""
    wire = b"".join(parts)
    try:
        check_partial(wire, LIMITS)
    except BadRequestError:
        with pytest.raises(BadRequestError):
            parse_request(wire + b"\r\n\r\n", LIMITS)


def test_a_response_keeps_its_reason_and_version() -> None:
    head = parse_response(b"HTTP/1.0 404\r\nA: b\r\n\r\n")
    assert (head.status, head.reason, head.minor, head.keep_alive) == (404, b"", 0, False)
    assert parse_response(b"HTTP/1.1 299 Bien s\xc3\xbbr\r\n\r\n").reason == b"Bien s\xc3\xbbr"

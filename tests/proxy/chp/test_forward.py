"""What requests become on their way, and targets as they are written."""

from dataclasses import dataclass

import pytest

from carrel_proxy.chp.forward import Rules, Sender, request_for, rewritten_location
from carrel_proxy.chp.targets import read_target
from carrel_proxy.core.head import HeadLimits, parse_request
from carrel_proxy.errors import BadTargetError
from carrel_shared.addresses import TcpAddress, UnixAddress


@dataclass
class From:
    peer: bytes
    trusted: bool
    https: bool = False


TRUSTED = From(b"127.0.0.1", trusted=True)
STRANGER = From(b"192.0.2.9", trusted=False)


def sent(
    *fields: str,
    path: str = "/user/a/x?q=1",
    target: str = "http://10.0.0.1:8888",
    depth: int = 2,
    sender: Sender = TRUSTED,
    rules: Rules | None = None,
    websocket: bool = False,
) -> list[str]:
    text = "\r\n".join([f"GET {path} HTTP/1.1", "Host: hub.test:8443", *fields, "", ""])
    head = parse_request(text.encode("latin-1"), HeadLimits())
    data = request_for(
        head, read_target(target), depth, sender, rules or Rules(), websocket=websocket
    )
    return data.decode("latin-1").split("\r\n")[:-2]


def test_a_request_says_where_it_came_from() -> None:
    assert sent() == [
        "GET /user/a/x?q=1 HTTP/1.1",
        "Host: hub.test:8443",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-port: 8443",
        "x-forwarded-proto: http",
        "x-forwarded-host: hub.test:8443",
    ]


def test_a_trusted_proxy_is_continued() -> None:
    lines = sent(
        "X-Forwarded-For: 192.0.2.1, 10.0.0.9",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Port: 443",
        "X-Forwarded-Host: outer.test",
        "X-Real-IP: 192.0.2.1",
        "X-Scheme: https",
    )
    assert "x-scheme: https" in lines
    assert "x-forwarded-for: 192.0.2.1, 10.0.0.9,127.0.0.1" in lines
    assert "x-forwarded-proto: https,http" in lines
    assert "x-forwarded-port: 443,8443" in lines
    assert "x-forwarded-host: outer.test" in lines
    assert "x-real-ip: 192.0.2.1" in lines


def test_a_claim_that_says_nothing_is_none() -> None:
    lines = sent("X-Forwarded-For:", "X-Forwarded-Host:", "X-Forwarded-Proto:")
    assert lines[1:] == sent()[1:]


@pytest.mark.parametrize("rules", [Rules(), Rules(x_forward=False)])
def test_a_strangers_claims_end_here(rules: Rules) -> None:
    lines = sent(
        "X-Forwarded-For: 10.0.0.1",
        "X-Forwarded-Prefix: /x",
        "X_Forwarded_For: 10.0.0.1",
        "Forwarded: for=10.0.0.1",
        "X-Real-IP: 10.0.0.1",
        "X-Scheme: ftp10.0.0.1",
        "X-Carrel-User: root",
        sender=STRANGER,
        rules=rules,
    )
    assert not [line for line in lines if "10.0.0.1" in line or "root" in line or "/x" in line[12:]]


def test_nobody_spells_claims_with_underscores() -> None:
    lines = sent("X_Forwarded_For: 6.6.6.6", "X-Carrel-User: root", "X_Under_Score: 1")
    assert "x_under_score: 1" in lines
    assert not [line for line in lines if "6.6.6.6" in line or "root" in line]


def test_a_websocket_is_forwarded_as_one() -> None:
    lines = sent(
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        sender=From(b"::1", trusted=True, https=True),
        websocket=True,
    )
    assert "x-forwarded-proto: wss" in lines
    assert not [line for line in lines if line.startswith("x-forwarded-host")]


def test_a_custom_host_replaces_the_clients() -> None:
    lines = sent(rules=Rules(custom=((b"host", b"inner.test"), (b"X-One", b"1"))))
    assert [line for line in lines if line.lower().startswith("host:")] == ["Host: inner.test"]
    assert "x-forwarded-host: hub.test:8443" in lines


def test_custom_headers_replace_the_clients() -> None:
    rules = Rules(custom=((b"X-One", b"1"), (b"Authorization", b"token fixed")))
    lines = sent("x-ONE: client", "X-Two: 2", "Authorization: token mine", rules=rules)
    assert "X-One: 1" in lines
    assert "X-Two: 2" in lines
    assert "Authorization: token fixed" in lines
    assert not [line for line in lines if "client" in line or "mine" in line]


@pytest.mark.parametrize(
    ("target", "rules", "path", "expected"),
    [
        ("http://h:1/base/", Rules(), "/user/a/x", "/base/user/a/x"),
        ("http://h:1/base//", Rules(), "/user/a/x", "/base//user/a/x"),
        ("http://h:1/base", Rules(prepend_path=False), "/user/a/x", "/user/a/x"),
        ("http://h:1", Rules(include_prefix=False), "/user/a/x/y?q=1", "/x/y?q=1"),
        ("http://h:1", Rules(include_prefix=False), "/user/a", "/"),
        ("http://h:1", Rules(include_prefix=False), "/user/a?q", "/?q"),
        ("http://h:1/base", Rules(include_prefix=False), "/user/a/x", "/base/x"),
        ("http://h:1/base", Rules(include_prefix=False), "/user/a", "/base"),
        ("http://h:1/base", Rules(include_prefix=False), "/user/a/?q", "/base/?q"),
        ("http://h:1/base/", Rules(include_prefix=False), "/user/a", "/base/"),
        ("http://h:1/base/?t=1", Rules(include_prefix=False), "/user/a?q", "/base/?t=1&q"),
        ("http://h:1/base//", Rules(include_prefix=False), "/user/a", "/base//"),
        ("http://h:1/base/", Rules(include_prefix=False), "/user/a/x", "/base/x"),
        ("http://h:1/b?t=1", Rules(), "/user/a?q=1", "/b/user/a?t=1&q=1"),
        ("http://h:1/b?t=1", Rules(), "/user/a", "/b/user/a?t=1"),
        ("http://h:1", Rules(), "/user/a/f%2Fg%40", "/user/a/f%2Fg%40"),
    ],
)
def test_paths(target: str, rules: Rules, path: str, expected: str) -> None:
    line = sent(path=path, target=target, rules=rules)[0]
    assert line == f"GET {expected} HTTP/1.1"


def test_the_target_can_be_the_host() -> None:
    assert sent(rules=Rules(change_origin=True))[1] == "Host: 10.0.0.1:8888"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("http://h", TcpAddress("h", 80)),
        ("https://h", TcpAddress("h", 443)),
        ("HTTP://h:81/", TcpAddress("h", 81)),
        ("http://[::1]:81", TcpAddress("::1", 81)),
        ("http://[::1]", TcpAddress("::1", 80)),
        ("http://h:", TcpAddress("h", 80)),
        ("https://[::1]:/x", TcpAddress("::1", 443)),
        ("http+unix://%2Frun%2Fx.sock", UnixAddress("/run/x.sock")),
        ("unix+http://%2Frun%2Fx.sock/base", UnixAddress("/run/x.sock")),
    ],
)
def test_targets(text: str, address: object) -> None:
    assert read_target(text).address == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "h:81",
        "ftp://h",
        "http://",
        "http://h:x",
        "http://u:p@h",
        "http://h/a b",
        "http://h/é",
        "http://169.254.169.254",
        "http://0x7f000001:80",
        "http://[::ffff:127.0.0.1]:80",
        "http+unix://relative",
        "http+unix://%ff",
    ],
)
def test_bad_targets(text: str) -> None:
    with pytest.raises(BadTargetError):
        read_target(text)


@pytest.mark.parametrize(
    ("value", "status", "expected"),
    [
        (b"http://h:1/a?b=c", 302, b"https://hub.test/a?b=c"),
        (b"http://H:1", 201, b"https://hub.test"),
        (b"http://other/a", 302, b"http://other/a"),
        (b"http://h:1/a", 200, b"http://h:1/a"),
        (b"/a", 302, b"/a"),
    ],
)
def test_redirects_are_rewritten(value: bytes, status: int, expected: bytes) -> None:
    rules = Rules(auto_rewrite=True, protocol_rewrite=b"https")
    target = read_target("http://h:1")
    assert rewritten_location(value, status, b"hub.test", target, rules) == expected
    assert rewritten_location(value, status, b"hub.test", target, Rules()) == value

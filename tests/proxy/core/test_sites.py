"""Routes by host: whole names, and nothing that only looks like one."""

import pytest

from carrel_proxy.core.paths import prefix_segments
from carrel_proxy.core.sites import Sites, host_name


def sites(*routes: tuple[str, str]) -> Sites[str]:
    found: Sites[str] = Sites()
    for host, prefix in routes:
        found.put(host, prefix_segments(prefix.encode()), f"{host}{prefix}")
    return found


DOMAIN = sites(
    ("hub.test", "/"),
    ("*.hub.test", "/"),
    ("alice.hub.test", "/user/alice/"),
    ("bob.hub.test", "/user/bob/"),
)


@pytest.mark.parametrize(
    ("host", "path", "found"),
    [
        (b"hub.test", b"/hub/home", "hub.test/"),
        (b"HUB.Test:8000", b"/hub/home", "hub.test/"),
        (b"hub.test.", b"/hub/home", "hub.test/"),
        (b"hub.test", b"/user/alice/lab", "hub.test/"),
        (b"alice.hub.test", b"/user/alice/lab", "alice.hub.test/user/alice/"),
        (b"ALICE.hub.test.:443", b"/user/alice/lab", "alice.hub.test/user/alice/"),
        (b"alice.hub.test", b"/user/bob/lab", "*.hub.test/"),
        (b"alice.hub.test", b"/hub/home", "*.hub.test/"),
        (b"nobody.hub.test", b"/user/alice/lab", "*.hub.test/"),
        (b"evilhub.test", b"/", None),
        (b"hub.test.evil", b"/", None),
        (b"a.alice.hub.test", b"/user/alice/lab", None),
        (b"alice.hub.test.evil", b"/user/alice/lab", None),
        (b"test", b"/", None),
        (b"*.hub.test", b"/", "*.hub.test/"),
        (b"127.0.0.1:8000", b"/", None),
        (b"[::1]:8000", b"/", None),
        (b"hub.test..", b"/", None),
    ],
)
def test_a_host_is_compared_whole(host: bytes, path: bytes, found: str | None) -> None:
    assert DOMAIN.match(host, path) == found
    assert DOMAIN.knows(host) == (found is not None)


def test_without_hosts_every_name_will_do() -> None:
    any_host = sites(("", "/"), ("", "/user/alice/"))
    for host in (b"hub.test", b"127.0.0.1", b"[::1]:80"):
        assert any_host.match(host, b"/user/alice/x") == "/user/alice/"
        assert any_host.knows(host)


def test_a_host_whose_last_route_goes_is_forgotten() -> None:
    one = sites(("alice.hub.test", "/user/alice/"), ("hub.test", "/"))
    one.remove("alice.hub.test", [b"user", b"alice"])
    one.remove("alice.hub.test", [b"user", b"alice"])
    assert one.match(b"alice.hub.test", b"/user/alice/") is None
    assert not one.knows(b"alice.hub.test")
    one.remove("hub.test", [])
    assert one.knows(b"anything")


@pytest.mark.parametrize(
    ("host", "name"),
    [(b"A.b:1", b"a.b"), (b"a.b.", b"a.b"), (b"[::1]:80", b"[::1]:80"), (b"a", b"a")],
)
def test_a_name_is_what_is_left(host: bytes, name: bytes) -> None:
    assert host_name(host) == name

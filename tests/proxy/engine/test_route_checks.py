"""Routes checked together are refused as they are one by one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from proxy.running import guarded_route, plain_route

from carrel_proxy.engine.route_checks import _all_plain, check_nothing, check_route, check_routes
from carrel_proxy.errors import BadTargetError
from carrel_shared.wire.routes import Route

GOOD = [
    plain_route("http://127.0.0.1:1"),
    guarded_route("unix:/run/a/http.sock", "/user/a.b@c.test/"),
    plain_route("unix:/run/x", "/..a/.b./"),
]
PARTS = st.sampled_from(["/", "a", ".", "..", "%7E", "%2F", "%", "\n", "é", "\\", "//", "?", "~"])
TARGETS = st.sampled_from(
    [
        "unix:/a",
        "unix:/" + "a" * 106,
        "unix:/" + "a" * 107,
        "unix:/a\nunix:/b",
        "unix:/a b",
        "unix:/\x7f",
        "unix:/é",
        "unix:/",
        "unix:",
        "http://127.0.0.1:1",
        "x",
    ]
)
ROUTES = st.builds(
    lambda parts, targets, secret: (
        guarded_route("unix:/a", "/" + "".join(parts))
        if secret is None
        else Route(prefix="/" + "".join(parts), targets=targets)
    ),
    st.lists(PARTS, max_size=5),
    st.lists(TARGETS, min_size=1, max_size=3),
    st.sampled_from([None, ""]),
)


def is_refused(route: Route) -> bool:
    try:
        check_route(route)
    except BadTargetError:
        return True
    return False


@given(st.lists(ROUTES, max_size=4))
def test_together_they_are_judged_as_one_by_one(routes: list[Route]) -> None:
    bad = [route for route in routes if is_refused(route)]
    if bad:
        assert not _all_plain(routes)
        with pytest.raises(BadTargetError):
            check_routes(routes, check_nothing)
    else:
        check_routes(routes, check_nothing)


def test_a_table_as_the_hub_makes_it_is_judged_at_once() -> None:
    assert _all_plain(GOOD)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (plain_route("unix:/a", "/user/./"), "dot"),
        (plain_route("unix:/a", "/user"), "slash at both ends"),
        (plain_route("unix:/a", "/us\ner/"), "percent-encoded"),
        (plain_route("ftp://a"), "a target is"),
        (plain_route("http://127.0.0.1:0"), "port 0"),
        (plain_route("unix:/" + "a" * 200), "path"),
        (guarded_route("unix:/a", stock_client_id="x"), "signs people in"),
    ],
)
def test_one_bad_route_is_found_among_good_ones(bad: Route, says: str) -> None:
    with pytest.raises(BadTargetError, match=says):
        check_routes([*GOOD, bad, *GOOD], check_nothing)


def test_a_secret_that_is_no_field_value_is_found() -> None:
    good = guarded_route("unix:/a")
    assert good.access is not None
    bad = replace(good, access=replace(good.access, secret="a\r\nX: y"))
    with pytest.raises(BadTargetError, match="secret"):
        check_routes([*GOOD, bad], check_nothing)

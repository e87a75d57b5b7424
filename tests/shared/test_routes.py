"""What is said about routes is read strictly, and told in a line where it cannot be."""

import json
from typing import Any

import pytest

from carrel_shared.wire.routes import (
    Access,
    DeleteRoute,
    PutRoute,
    Revocation,
    Revoke,
    Route,
    RouteChanges,
    RouteTable,
    UnreadableError,
)

ACCESS = {"server_id": "0123456789ab", "client_id": "c", "secret": "canary"}
ROUTE = {"prefix": "/user/alice/", "targets": ["unix:/a"], "access": ACCESS}


def table(**changed: Any) -> bytes:
    """Return a table of one route that is not as it should be."""
    return _json({"routes": [ROUTE | changed]})


def access(**changed: Any) -> bytes:
    return table(access=ACCESS | changed)


def _json(changed: dict[str, Any]) -> bytes:
    return json.dumps({"epoch": "e", "number": 1, "routes": [ROUTE]} | changed).encode()


def test_what_is_sent_is_what_is_read() -> None:
    guarded = Access(server_id="0123456789ab", client_id="c", secret="s", csrf="app")
    far = Route(prefix="/b/", host="*.hub.test", targets=["https://h:1"], host_id="host-b")
    route = Route(prefix="/a/", targets=["unix:/a"], peer_uid=7, access=guarded, server=True)
    whole = RouteTable(epoch="e", number=7, routes=[route, far], keep=["/c/"])
    assert RouteTable.read(whole.json()) == whole
    changes = RouteChanges(
        epoch="e",
        base=7,
        number=10,
        changes=[
            PutRoute(route=route),
            DeleteRoute(prefix="/b/", host="b.hub.test"),
            Revoke(revocation=Revocation(user="alice", ask_first=True)),
        ],
    )
    assert RouteChanges.read(changes.json()) == changes


def test_what_goes_without_saying_may_be_said() -> None:
    """As releases before did, in journals and in the hub's change log."""
    said = ACCESS | {"csrf": "origin", "origin": "", "hub_origin": ""}
    route = {"host": "", "peer_uid": None, "host_id": None, "server": False, "stock_client_id": ""}
    whole = _json({"routes": [ROUTE | route | {"access": said}], "keep": []})
    assert RouteTable.read(whole) == RouteTable.read(_json({}))


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (table(prefix=None), "routes[0].prefix"),
        (table(targets=[]), "routes[0].targets"),
        (table(targets=["unix:/a", 1]), "routes[0].targets[1]"),
        (table(peer_uid="0"), "routes[0].peer_uid"),
        (table(peer_uid=True), "routes[0].peer_uid"),
        (table(peer_uid=0.5), "routes[0].peer_uid"),
        (table(peer_uid=-1), "routes[0].peer_uid"),
        (table(peer_uid=2**32), "routes[0].peer_uid"),
        (table(server=1), "routes[0].server"),
        (table(host="Hub.test"), "routes[0].host"),
        (table(host="hub.test\n"), "routes[0].host"),
        (table(host="hub.test:80"), "routes[0].host"),
        (table(host_id="host_b"), "routes[0].host_id"),
        (table(host_id="host-b\n"), "routes[0].host_id"),
        (table(guard={}), "unknown field `guard`"),
        (access(server_id="0123456789AB"), "routes[0].access.server_id"),
        (access(server_id="0123456789ab\n"), "routes[0].access.server_id"),
        (access(origin="https://hub.test/"), "routes[0].access.origin"),
        (access(hub_origin="javascript:x"), "routes[0].access.hub_origin"),
        (access(csrf="none"), "routes[0].access.csrf"),
        (access(allow="all"), "unknown field `allow`"),
        (_json({"number": "1"}), "number"),
        (_json({"number": -1}), "number"),
        (_json({"number": 10**399}), "number"),
        (_json({"keep": [1]}), "keep[0]"),
        (_json({"more": 1}), "unknown field `more`"),
        (b'{"epoch":"e","number":1}', "routes"),
        (b'{"epoch":"\xff"}', "utf-8"),
        (b'{"epoch":"\\ud800","number":1,"routes":[]}', ""),
        (_json({}) + b"{}", "trailing"),
        (b'{"' + b"x" * 100_000 + b'":1}', "unknown field"),
    ],
)
def test_what_is_wrong_is_named_and_no_secret_is(body: bytes, where: str) -> None:
    with pytest.raises(UnreadableError) as found:
        RouteTable.read(body)
    assert where in str(found.value)
    assert len(str(found.value)) <= 200
    assert "canary" not in str(found.value)


@pytest.mark.parametrize(
    "change",
    [
        {"route": ROUTE},
        {"op": "post", "route": ROUTE},
        {"op": "put", "prefix": "/a/"},
        {"op": "delete", "prefix": "/a/", "route": ROUTE},
        {"op": "revoke", "revocation": {"server_id": "x"}},
        {"op": "revoke", "revocation": {"everybody": True}},
        {"op": "revoke", "revocation": {}},
        {"op": "revoke", "revocation": {"user": "", "ask_first": True}},
    ],
)
def test_a_change_that_means_nothing_is_not_read(change: dict[str, Any]) -> None:
    body = {"epoch": "e", "base": 1, "number": 2, "changes": [change]}
    with pytest.raises(UnreadableError, match=r"changes\[0\]"):
        RouteChanges.read(json.dumps(body).encode())


@pytest.mark.parametrize("number", [7, 6, 0])
def test_changes_that_lead_back_are_not_read(number: int) -> None:
    """A table that went back would take later changes for those it has."""
    change = {"op": "delete", "prefix": "/a/"}
    body = {"epoch": "e", "base": 7, "number": number, "changes": [change]}
    with pytest.raises(UnreadableError, match="higher"):
        RouteChanges.read(json.dumps(body).encode())

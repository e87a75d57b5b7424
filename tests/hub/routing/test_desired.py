"""Rows to routes."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hub.world import make_settings

from carrel_hub.db.models import Server
from carrel_hub.routing.desired import desired_routes, hub_routes
from carrel_hub.spawns.paths import server_prefix, wanted_client_id

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def _server(**values: Any) -> Server:
    known: dict[str, Any] = {
        "id": "0123456789ab",
        "user_id": 1,
        "client_id": "jupyterhub-user-a",
        "secret": "s",
        "created": NOW,
        "address": "unix:/s/http.sock",
        "peer_uid": 1000,
        "route_number": 3,
        "state": "ready",
    }
    return Server(**{**known, **values})


def test_the_hub_has_the_default_route_below_its_base_url() -> None:
    settings = make_settings(Path("/tmp/x"), base_url="/jup/", listen="127.0.0.1:8081")
    (route,) = hub_routes(settings)
    assert (route.prefix, route.targets) == ("/jup/", ["http://127.0.0.1:8081"])
    assert route.access is None


def test_only_servers_with_a_route_number_are_routed_whatever_their_state() -> None:
    settings = make_settings(Path("/tmp/x"))
    rows = [
        (_server(), "alice"),
        (_server(state="unknown"), "bob"),
        (_server(state="starting", route_number=None), "carol"),
    ]
    prefixes = [route.prefix for route in desired_routes(settings, rows)]
    assert prefixes == ["/", "/user/alice/", "/user/bob/"]


def test_names_are_escaped_as_jupyterhub_does() -> None:
    assert server_prefix("/", "a b@c~d") == "/user/a%20b@c~d/"
    assert server_prefix("/jup/", "ä", "x") == "/jup/user/%C3%A4/x/"
    assert wanted_client_id("a@b") == "jupyterhub-user-a%40b"
    assert wanted_client_id("a", "s") == "jupyterhub-user-a-s"

"""Names that somebody chooses so that it goes ill for everybody."""

import pytest
from hub.users.conftest import NewPerson
from hub.web.site import open_site
from hub.world import World
from hypothesis import given
from hypothesis import strategies as st

from carrel_hub.auth.names import MAX_NAME, InvalidNameError, normalise_name
from carrel_hub.db.models import User
from carrel_hub.routing.desired import desired_routes
from carrel_hub.services.fields import check_name
from carrel_hub.spawns.naming import MAX_NAME as MAX_SERVER_NAME
from carrel_hub.spawns.paths import server_prefix, wanted_client_id
from carrel_proxy.core.paths import prefix_segments
from carrel_shared.wire.routes import Route

_ASCII = "".join(map(chr, range(0x20, 0x7F)))


@given(st.text(max_size=20) | st.text(_ASCII, max_size=20))
def test_proxies_take_a_route_for_every_name_there_can_be(raw: str) -> None:
    """One that they do not take would be in the way of all the others."""
    for check in (normalise_name, check_name):
        try:
            name = check(raw)
        except (InvalidNameError, ValueError):
            continue
        assert prefix_segments(server_prefix("/", name).encode()) == [b"user", name.encode()]


@pytest.mark.parametrize("letter", ["a", "%", "é", "\U0001f600"])
def test_client_ids_are_no_longer_than_can_be_stored(letter: str) -> None:
    one, other = (letter * (MAX_NAME - 1) + last for last in "xy")
    for server in ("", "s" * MAX_SERVER_NAME):
        ids = {wanted_client_id(name, server) for name in (one, other)}
        assert len(ids) == 2
        assert max(map(len, ids)) <= 255 - len("-123456")


async def test_somebody_with_a_long_name_starts_a_server(
    world: World,
) -> None:
    assert (await world.ready("\u540d" * 100)).state == "ready"


async def test_a_user_of_old_whose_name_no_route_can_have_stops_nobody(
    live: World, new_person: NewPerson
) -> None:
    bob, old = await new_person("bob"), await new_person("a\\b")
    assert (await bob.post("/users/bob/server")).status_code == 201
    refused = await old.post("/users/a%5Cb/server")
    assert refused.status_code == 400
    assert "rename the user" in refused.json()["message"]
    row = await live.row(await live.start("carol"))
    row.route_number, row.address = 1, "unix:/x"
    routes: list[Route] = desired_routes(live.hub.settings, [(row, "a\\b"), (row, "carol")])
    assert [route.prefix for route in routes if route.server] == ["/user/carol/"]


async def test_nobody_signs_in_by_such_a_name() -> None:
    async with open_site(auth={"authenticator": "dummy"}) as site:
        browser = site.browser()
        page = await browser.get("/hub/login")
        reply = await browser.press(page, "sign-in", username="domain\\user", password="x")
        assert reply.status_code == 403
        assert await site.all(User) == []

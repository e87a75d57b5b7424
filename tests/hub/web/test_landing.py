"""Where people land who did not say where they want to be."""

from typing import Any

import pytest
from hub.web.site import Site, open_site
from pydantic import ValidationError


async def landing(site: Site) -> tuple[str, str]:
    """Return where signing in leads, and where the hub's root does then."""
    await site.add_user("alice")
    site.pam.passwords["alice"] = "secret"
    browser = site.browser()
    page = await browser.get("/hub/login")
    reply = await browser.press(page, "sign-in", username="alice", password="secret")
    root = await browser.get("/hub/")
    assert (reply.status_code, root.status_code) == (302, 302)
    return reply.headers["location"], root.headers["location"]


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        ({}, "/hub/spawn"),
        ({"redirect_to_server": False}, "/hub/home"),
        ({"landing_url": "/hub/home"}, "/hub/home"),
        ({"landing_url": "/services/course/?week=1"}, "/services/course/?week=1"),
        ({"landing_url": "/user/{username}/lab/tree/x"}, "/user/alice/lab/tree/x"),
    ],
)
async def test_the_settings_say_where(settings: dict[str, Any], place: str) -> None:
    async with open_site(**settings) as site:
        assert await landing(site) == (place, place)
        wanted = await (await site.signed_in("bob")).get("/hub/?next=/hub/token")
        assert wanted.headers["location"] == "/hub/token", "unless they do"


async def test_a_place_for_everybody_needs_no_sign_in_at_the_root() -> None:
    async with open_site(landing_url="/services/course/") as site:
        assert (await site.browser().get("/hub/")).headers["location"] == "/services/course/"
    async with open_site(landing_url="/user/{username}/") as site:
        reply = await site.browser().get("/hub/")
        assert reply.headers["location"] == "/hub/login?next=%2Fhub%2F"


@pytest.mark.parametrize(
    "wrong",
    ["", "home", "//evil.example/", "/\\evil", "https://evil.example/", "/hub/", "/", "/a b"],
)
async def test_it_is_a_place_of_ours_and_not_the_root_itself(wrong: str) -> None:
    with pytest.raises(ValidationError):
        async with open_site(landing_url=wrong):
            pass

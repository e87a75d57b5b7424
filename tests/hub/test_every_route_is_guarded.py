"""Every route of both applications refuses strangers, but for those that are public on purpose."""

import re
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from fastapi import FastAPI
from hub.route_walk import build_apps, routes
from hub.world import World

PUBLIC = {
    "/hub/api",
    "/hub/api/",
    "/hub/api/health",
    "/hub/health",
    "/internal/v1/health",
}
"""Routes of the API and of the internal API that answer everybody."""

SIGNS_IN_FIRST = {"/hub/api/oauth2/authorize"}
"""Where a browser without a sign-in is sent to sign in."""


@pytest.fixture
async def strangers(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[list[FastAPI], httpx.AsyncClient, httpx.AsyncClient]]:
    made, public, internal = build_apps(world.hub, monkeypatch)
    async with (
        httpx.AsyncClient(transport=httpx.ASGITransport(app=public), base_url="http://hub") as one,
        httpx.AsyncClient(transport=httpx.ASGITransport(app=internal), base_url="http://h") as two,
    ):
        yield made, one, two


def guarded(apps: list[FastAPI]) -> Iterator[tuple[str, str]]:
    """Yield method and path of every route that is not a page and not public."""
    for app in apps:
        for method, path in routes(app):
            if path.startswith(("/hub/api", "/internal/")) and path not in PUBLIC | SIGNS_IN_FIRST:
                yield method, re.sub(r"\{[^}]*\}", "x", path)


async def test_strangers_get_nothing_from_any_api(
    strangers: tuple[list[FastAPI], httpx.AsyncClient, httpx.AsyncClient],
) -> None:
    apps, public, internal = strangers
    found = list(guarded(apps))
    assert len(found) > 40, "the walk does not find the routes"
    for method, path in found:
        client = internal if path.startswith("/internal/") else public
        reply = await client.request(method, path, json={})
        # What is no grant is told so before any secret is looked at (RFC 6749 5.2).
        no_grant = path.endswith("/oauth2/token") and "error" in reply.json()
        said = (400,) if no_grant else (401, 403)
        assert reply.status_code in said, f"{method} {path} answers {reply.status_code}"
    reply = await public.get("/hub/api/oauth2/authorize")
    assert reply.status_code in (302, 400, 403)

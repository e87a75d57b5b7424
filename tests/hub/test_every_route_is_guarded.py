"""Every route of both applications refuses strangers, but for those that are public on purpose."""

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from hub.world import World

from carrel_hub import app as app_module
from carrel_hub.app import create_internal_app, create_public_app

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
    made: list[FastAPI] = []
    new_app = app_module._new_app

    def remembered(*args: object) -> FastAPI:
        made.append(new_app(*args))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(app_module, "_new_app", remembered)
    public, internal = create_public_app(world.hub), create_internal_app(world.hub)
    async with (
        httpx.AsyncClient(transport=httpx.ASGITransport(app=public), base_url="http://hub") as one,
        httpx.AsyncClient(transport=httpx.ASGITransport(app=internal), base_url="http://h") as two,
    ):
        yield made, one, two


def routes(holder: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield method and path of every route of an application, or of a router in it."""
    for route in holder.routes:
        if isinstance(route, APIRoute):
            for method in sorted(route.methods or ()):
                yield method, prefix + route.path
        else:  # FastAPI keeps what was included as it is; any other kind has no router and fails
            yield from routes(route.original_router, prefix + route.include_context.prefix)


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
        assert reply.status_code in (401, 403), f"{method} {path} answers {reply.status_code}"
    reply = await public.get("/hub/api/oauth2/authorize")
    assert reply.status_code in (302, 400, 403)

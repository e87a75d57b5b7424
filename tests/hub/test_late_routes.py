"""Routes that are built when they are first asked for: what is served is the same."""

import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.routing import APIRoute

from carrel_hub.late_routes import LateRoute, LateRouter, add_routes


def refuse_strangers(request: Request) -> None:
    if "name" not in request.headers:
        raise HTTPException(403)


def application() -> FastAPI:
    inner, outer, app = (
        LateRouter(dependencies=[Depends(refuse_strangers)]),
        LateRouter(),
        FastAPI(),
    )

    @inner.get("/things/{number}", status_code=203)
    async def thing(number: int) -> dict[str, int]:
        return {"number": number}

    @inner.post("/things/{number}")
    async def change(number: int) -> dict[str, int]:
        return {"changed": number}

    @outer.get("/other")
    async def other() -> dict[str, str]:
        return {}

    outer.take(inner, "/inner")
    add_routes(app, outer, "/api")
    return app


def built(app: FastAPI) -> set[str]:
    """Return the functions whose routes are built, without building any."""
    return {route.name for route in app.routes if isinstance(route, LateRoute) and route._is_built}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/inner/things/3", 203),
        ("POST", "/api/inner/things/3", 200),
        ("PUT", "/api/inner/things/3", 405),
        ("GET", "/api/inner/things/three", 422),
        ("GET", "/api/inner/things", 404),
        ("GET", "/inner/things/3", 404),
        ("GET", "/api/other", 200),
    ],
)
async def test_they_answer_as_any_route_does(method: str, path: str, status: int) -> None:
    transport = httpx.ASGITransport(application())
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        assert (await client.request(method, path, headers={"name": "a"})).status_code == status
        if "things/3" in path and status in (200, 203):
            assert (await client.request(method, path)).status_code == 403


async def test_only_what_is_asked_for_is_built() -> None:
    app = application()
    transport = httpx.ASGITransport(app)
    assert built(app) == set()
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        await client.get("/api/other")
    assert built(app) == {"other"}


def test_they_show_all_that_a_route_shows() -> None:
    paths = application().openapi()["paths"]
    assert set(paths) == {"/api/other", "/api/inner/things/{number}"}
    assert set(paths["/api/inner/things/{number}"]) == {"get", "post"}
    [other] = [
        route
        for route in application().routes
        if isinstance(route, APIRoute) and route.path == "/api/other"
    ]
    assert other.methods == {"GET"}
    with pytest.raises(AttributeError, match="no 'colour'"):
        _ = other.colour  # type: ignore[attr-defined]

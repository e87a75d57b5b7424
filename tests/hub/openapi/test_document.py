"""The API is described whole: every route, nothing that is not there, the contract's errors."""

import pytest
from fastapi import FastAPI
from hub.route_walk import build_apps, routes
from hub.users.conftest import NewPerson
from hub.world import World

from carrel_hub.openapi.document import UndocumentedError, describe_api, endpoint_name
from carrel_hub.openapi.operations import OPERATIONS

API = "/hub/api"
PAGES_FOR_PEOPLE = {f"{API}/oauth2/authorize"}


async def test_every_route_of_the_api_is_described_and_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    apps, _, _ = build_apps(world.hub, monkeypatch)
    [api] = [app for app in apps if any(path == API for _, path in routes(app))]
    document = describe_api(api.routes)
    described = {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    }
    there = {
        (method, path)
        for method, path in routes(api)
        if method != "HEAD" and path not in PAGES_FOR_PEOPLE
    }
    assert described == there
    names = [
        endpoint_name(method, path, operation["operationId"])
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    assert set(names) == OPERATIONS.keys(), "something is said of what is not there"
    ids = [op["operationId"] for methods in document["paths"].values() for op in methods.values()]
    assert len(ids) == len(set(ids))
    assert "422" not in str(document["paths"])
    assert document["components"]["schemas"]["Error"]["required"] == ["status", "message"]


def test_a_route_of_which_nothing_is_said_is_named() -> None:
    app = FastAPI()

    @app.get("/new")
    async def brand_new() -> None:
        pass

    with pytest.raises(UndocumentedError, match="GET /new: nothing is said of 'brand_new'"):
        describe_api(app.routes)


async def test_the_description_is_for_whoever_may_call(new_person: NewPerson) -> None:
    assert (await (await new_person(None)).get("/openapi.json")).status_code == 403
    alice = await new_person("alice")
    reply = await alice.get("/openapi.json")
    assert reply.json()["openapi"].startswith("3.1")
    assert (await alice.get("/openapi.json")).json() == reply.json()

"""What every request goes through."""

import httpx
import pytest
from hub.world import World

from carrel_hub.app import create_public_app
from carrel_hub.middleware import MAX_BODY_BYTES, client_address


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], None),
        (["203.0.113.9"], "203.0.113.9"),
        (["127.0.0.1"], "127.0.0.1"),
        (["127.0.0.1, 203.0.113.9"], "203.0.113.9"),
        (["127.0.0.1", "203.0.113.9"], "203.0.113.9"),
        (["203.0.113.9, 127.0.0.1"], "203.0.113.9"),
        (["nonsense, 203.0.113.9"], "203.0.113.9"),
        (["203.0.113.9, nonsense"], None),
        (["127.0.0.1, nonsense, 127.0.0.1"], "127.0.0.1"),
        (["[2001:db8::1]"], "2001:db8::1"),
    ],
)
def test_the_browsers_address_is_what_the_last_proxy_saw(
    headers: list[str], expected: str | None
) -> None:
    assert client_address(headers) == expected


def _client(world: World) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=create_public_app(world.hub), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://hub")


async def test_a_request_id_is_kept_when_it_is_one_and_replaced_otherwise(world: World) -> None:
    async with _client(world) as client:
        kept = await client.get("/hub/health", headers={"X-Request-Id": "abc-1"})
        assert kept.headers["x-request-id"] == "abc-1"
        other = await client.get("/hub/health", headers={"X-Request-Id": "x" * 200})
        assert len(other.headers["x-request-id"]) == 16


async def test_large_bodies_are_refused(world: World) -> None:
    async with _client(world) as client:
        reply = await client.post("/hub/login", content=b"x" * (MAX_BODY_BYTES + 1))
        assert reply.status_code == 413
        assert reply.headers["x-jupyterhub-version"] == "6.1.1"


@pytest.mark.parametrize("below", ["/hub/user", "/user"])
async def test_a_large_notebook_is_told_that_its_server_does_not_run(
    world: World, below: str
) -> None:
    """JupyterLab offers to start it when it is answered so."""
    async with _client(world) as client:
        headers = {"Authorization": "token x"}
        path, body = f"{below}/alice/api/contents/a.ipynb", b"x" * (2 * MAX_BODY_BYTES)
        reply = await client.put(path, content=body, headers=headers)
    assert reply.status_code == 424


async def test_a_fault_is_said_without_its_traceback_and_still_has_the_versions(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError("the inside of things")

    monkeypatch.setattr(world.hub.database, "read", broken)
    async with _client(world) as client:
        reply = await client.get("/hub/api/user", headers={"Authorization": "token " + "x" * 40})
    assert reply.status_code == 500
    assert reply.json() == {"status": 500, "message": "Internal Server Error"}
    assert reply.headers["x-jupyterhub-version"] == "6.1.1"


async def test_unknown_pages_are_pages_and_unknown_calls_are_json(world: World) -> None:
    async with _client(world) as client:
        page = await client.get("/hub/nothing")
        assert (page.status_code, page.headers["content-type"]) == (404, "text/html; charset=utf-8")
        call = await client.get("/hub/api/nothing")
        assert (call.status_code, call.headers["content-type"]) == (404, "application/json")
        for path in ("/docs", "/openapi.json", "/hub/docs"):
            assert (await client.get(path)).status_code in (302, 404)
        assert (await client.get("/hub/api/openapi.json")).status_code == 403

"""A hub to test with."""

from collections.abc import AsyncIterator, Iterator

import pytest
from hub import backends
from hub.world import World, open_world

from carrel_hub import late_routes
from carrel_hub.db import patience, postgres
from carrel_hub.late_routes import LateRoute, LateRouter


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what depends on the database on both kinds."""
    item = metafunc.definition
    if backends.is_for_both(item.path, metafunc.function, metafunc.fixturenames):
        metafunc.fixturenames.insert(0, "backend")
        metafunc.parametrize("backend", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture(autouse=True, scope="session")
def shared_routes() -> Iterator[None]:
    """Have the hub's applications build their routes once, not for each test."""
    build = late_routes._below
    built: dict[tuple[int, str], tuple[LateRouter, list[LateRoute]]] = {}

    def below(router: LateRouter, prefix: str) -> list[LateRoute]:
        key = (id(router), prefix)
        if key not in built:
            built[key] = (router, build(router, prefix))  # kept, so that its id stays its own
        return built[key][1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(late_routes, "_below", below)
        yield


@pytest.fixture(autouse=True)
def patient_writers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where many write at once, as tests have it, each waits for its turn on a busy disk too."""
    monkeypatch.setattr(patience, "WRITE_SECONDS", 60.0)
    monkeypatch.setattr(postgres, "WRITE_SECONDS", 60.0)
    monkeypatch.setattr(postgres, "_NEARLY_ALL", 59.9)
    monkeypatch.setitem(postgres._SERVER_SETTINGS, "lock_timeout", "60s")
    monkeypatch.setitem(postgres._SERVER_SETTINGS, "statement_timeout", "60s")
    monkeypatch.setitem(postgres._SERVER_SETTINGS, "idle_in_transaction_session_timeout", "60s")


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Which database the hubs of this test have."""
    kind: str = request.param
    on_postgres = kind == "postgresql"
    backends.postgres = request.getfixturevalue("postgres_server") if on_postgres else None
    yield kind
    backends.postgres = None


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with open_world() as made:
        yield made

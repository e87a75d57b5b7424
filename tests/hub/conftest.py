"""A hub to test with."""

from collections.abc import AsyncIterator, Iterator

import pytest
from hub import backends
from hub.world import World, open_world


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what depends on the database on both kinds."""
    item = metafunc.definition
    if backends.is_for_both(item.path, metafunc.function, metafunc.fixturenames):
        metafunc.fixturenames.insert(0, "backend")
        metafunc.parametrize("backend", ["sqlite", "postgresql"], indirect=True)


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

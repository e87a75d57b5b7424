"""Fixtures for every test."""

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """asyncio is the only loop the services run on."""
    return "asyncio"

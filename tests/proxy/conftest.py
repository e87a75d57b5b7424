"""The proxy's tests run on the loop that the proxy runs on."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from proxy.hub import FakeHub


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A directory whose name leaves room for a socket's."""
    directory = Path(tempfile.mkdtemp(prefix="cpx-", dir="/tmp"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def hub() -> FakeHub:
    return FakeHub()

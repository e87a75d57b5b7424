"""What whole systems are put together from."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A directory whose name leaves room for a socket's."""
    directory = Path(tempfile.mkdtemp(prefix="cin-", dir="/tmp"))
    yield directory
    shutil.rmtree(directory)

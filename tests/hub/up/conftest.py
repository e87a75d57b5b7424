"""A short directory, and fake services in it."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.supervised import Bench


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory with a path short enough for sockets."""
    path = Path(tempfile.mkdtemp(prefix="cu", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def bench(short: Path) -> Iterator[Bench]:
    bench = Bench(short)
    yield bench
    bench.clean()

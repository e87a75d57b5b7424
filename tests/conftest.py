"""Fixtures and rules for every test."""

import logging
import os
from collections.abc import Generator, Iterator
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, settings

from support.outcome import FAILED
from support.postgres import Postgres, run_postgres

# The same examples every time: a change is judged by what it changed. `--hypothesis-profile=search`
# looks for new ones. Nothing is timed: a machine that is busy is no fault of what is tested.
_SLOW = [HealthCheck.too_slow]
settings.register_profile(
    "same", derandomize=True, database=None, deadline=None, suppress_health_check=_SLOW
)
settings.register_profile("search", print_blob=True, deadline=None, suppress_health_check=_SLOW)
settings.load_profile("same")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """asyncio is the only loop the services run on."""
    return "asyncio"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """One PostgreSQL server for all tests, started when the first asks for it."""
    with run_postgres() as server:
        yield server


@pytest.fixture(autouse=True)
def unchanged_umask() -> Iterator[None]:
    """Commands set the umask of their process, which is the tests' own when called from one."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture(autouse=True)
def unchanged_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What configures logs in this process does so until its test's end.

    No logger keeps what it was first used with, which would be a file that is closed by then.
    """
    configure, root = structlog.configure, logging.getLogger()
    configured = []

    def configure_for_now(**options: Any) -> None:
        configured.append((structlog.get_config(), root.handlers[:], root.level))
        configure(**options | {"cache_logger_on_first_use": False})

    monkeypatch.setattr(structlog, "configure", configure_for_now)
    yield
    if configured:
        before, root.handlers[:], level = configured[0]
        configure(**before)
        root.setLevel(level)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI everything a test needs is there, so a skip there is a test that was lost."""
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {report.longrepr}"
    return report

"""An account to run servers as, and a host that runs them."""

import os
import pwd
import subprocess
import sys
from collections.abc import Iterator

import pytest

from support.accounts import temporary_account
from support.agent_host import AgentHost, running_host


@pytest.fixture(scope="session")
def account() -> Iterator[pwd.struct_passwd]:
    """An account of the tests' own when root, else the one that runs them."""
    if os.geteuid() != 0:
        yield pwd.getpwuid(os.geteuid())
        return
    with temporary_account("agent") as made:
        yield pwd.getpwnam(made.name)


@pytest.fixture(scope="module")
def host(account: pwd.struct_passwd) -> Iterator[AgentHost]:
    with running_host(account) as running:
        yield running


@pytest.fixture
def process() -> "Iterator[subprocess.Popen[bytes]]":
    """One that does nothing and is ours to end."""
    started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield started
    started.kill()
    started.wait()

"""An account to start things as, and something to start them with."""

import os
import pwd
from collections.abc import Iterator

import pytest

from support.accounts import temporary_account
from support.launching import Launcher, launcher


@pytest.fixture(scope="session")
def account() -> Iterator[pwd.struct_passwd]:
    """An account of the tests' own when root, else the one that runs them."""
    if os.geteuid() != 0:
        yield pwd.getpwuid(os.geteuid())
        return
    with temporary_account("p") as made:
        yield pwd.getpwnam(made.name)


@pytest.fixture(scope="module")
def started() -> Iterator[Launcher]:
    with launcher() as one:
        yield one

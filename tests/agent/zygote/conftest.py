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
    with temporary_account("z") as made:
        yield pwd.getpwnam(made.name)


@pytest.fixture(scope="package")
def started() -> Iterator[Launcher]:
    with launcher() as one:
        yield one


@pytest.fixture(scope="package")
def zygote(started: Launcher) -> Launcher:
    """A launcher whose zygote is up."""
    started.start_zygote()
    return started

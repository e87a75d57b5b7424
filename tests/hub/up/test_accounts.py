"""Accounts that are made and removed; for real, so as root only."""

import os
import pwd
import secrets
import subprocess
from collections.abc import Iterator

import pytest

from carrel_hub.up import accounts
from carrel_hub.up.accounts import (
    ensure_demo_account,
    ensure_service_account,
    find_account,
    remove_demo_account,
)
from carrel_hub.up.errors import UpError

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="making accounts needs root"),
]


@pytest.fixture
def name(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A name nobody has, which is the demo account's for this test."""
    name = f"carrel-t-demo-{secrets.token_hex(2)}"
    monkeypatch.setattr(accounts, "DEMO_ACCOUNT", name)
    yield name
    subprocess.run(["userdel", "-r", "-f", name], check=False, capture_output=True)


def test_the_demo_account_is_a_person_without_a_password(name: str) -> None:
    assert ensure_demo_account()
    assert not ensure_demo_account(), "it is there already"
    account = find_account(name)
    assert account is not None
    assert account.uid >= 1000
    assert os.stat(account.home).st_uid == account.uid  # noqa: PTH116
    shadow = subprocess.run(["passwd", "-S", name], check=True, capture_output=True, text=True)
    assert shadow.stdout.split()[1] == "L"


def test_removing_the_demo_account_ends_what_it_runs(name: str) -> None:
    ensure_demo_account()
    account = find_account(name)
    assert account is not None
    busy = subprocess.Popen(["sleep", "600"], user=account.uid, group=account.gid, cwd="/")
    try:
        assert "processes ended: 1." in remove_demo_account()
        assert busy.wait(60) != 0
    finally:
        busy.kill()
        busy.wait()
    assert find_account(name) is None
    assert not os.path.exists(account.home)  # noqa: PTH110
    assert remove_demo_account() == f"There is no account {name}."


def test_an_account_that_somebody_else_made_stays(name: str) -> None:
    subprocess.run(["useradd", "-m", name], check=True)
    assert not ensure_demo_account(), "it is used as it is"
    with pytest.raises(UpError, match="not made by Carrel, so it stays"):
        remove_demo_account()
    assert find_account(name) is not None


def test_the_service_account_is_a_system_account_that_cannot_log_in(name: str) -> None:
    with pytest.raises(UpError, match=f"--service-user {name}: there is no such"):
        ensure_service_account(name, make=False)
    account, made = ensure_service_account(name, make=True)
    assert made
    assert 0 < account.uid < 1000
    assert account.group == name
    entry = pwd.getpwnam(name)
    assert (entry.pw_dir, entry.pw_shell) == ("/nonexistent", "/usr/sbin/nologin")
    assert ensure_service_account(name, make=True) == (account, False)


def test_hub_and_proxy_never_run_as_root() -> None:
    with pytest.raises(UpError, match="do not run as root"):
        ensure_service_account("root", make=False)

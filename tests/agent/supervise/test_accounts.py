"""Which accounts may run servers."""

import os
import pwd
import threading

import pytest

from carrel_agent.errors import AccountRefusedError, SetupError, UnavailableError
from carrel_agent.supervise import accounts
from carrel_agent.supervise.accounts import check_account, group_id, look_up_account


def entry(name: str, uid: int) -> pwd.struct_passwd:
    return pwd.struct_passwd((name, "x", uid, uid, "", f"/home/{name}", "/bin/sh"))


@pytest.mark.parametrize(
    ("asked", "found", "word"),
    [
        ("root", entry("root", 0), "root"),
        ("toor", entry("toor", 0), "root"),
        ("daemon", entry("daemon", 999), "system"),
        ("nobody", entry("nobody", 65534), "system"),
        ("Alice", entry("alice", 1000), "exact name"),
        ("CORP\\alice", entry("alice", 1000), "exact name"),
        ("alice ", entry("alice", 1000), "exact name"),
        ("alice@corp", entry("alice", 1000), "exact name"),
    ],
)
def test_root_systems_and_other_spellings_are_refused(
    asked: str, found: pwd.struct_passwd, word: str
) -> None:
    with pytest.raises(AccountRefusedError, match=word):
        check_account(found, asked, own_uid=0, min_uid=1000)


def test_people_are_accepted() -> None:
    check_account(entry("alice", 54321), "alice", own_uid=0, min_uid=1000)
    check_account(entry("alice", 500), "alice", own_uid=500, min_uid=1000)


def test_a_second_name_of_somebodys_is_refused(account: pwd.struct_passwd) -> None:
    with pytest.raises(
        AccountRefusedError, match=f"another name of the account.*{account.pw_name}"
    ):
        check_account(entry("alias", account.pw_uid), "alias", own_uid=0, min_uid=1)


def test_without_root_both_accounts_are_named() -> None:
    own = pwd.getpwuid(os.getuid()).pw_name
    with pytest.raises(AccountRefusedError) as caught:
        check_account(entry("alice", 54321), "alice", own_uid=os.getuid() or 1, min_uid=1000)
    assert "'alice'" in caught.value.message
    assert own in caught.value.message or os.getuid() == 0


@pytest.mark.parametrize("name", ["", "no-such-account", "a\0b", "../../etc", "1000", "é" * 300])
async def test_names_of_nobody_are_refused(name: str) -> None:
    with pytest.raises(AccountRefusedError, match="no unix account"):
        await look_up_account(name, own_uid=0, min_uid=1000)


async def test_a_name_service_that_hangs_is_told_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """FLT-K3: it may be a network away; what is not known now may be later."""
    asked = threading.Event()

    def hang(_name: str) -> pwd.struct_passwd:
        asked.wait(60)
        raise KeyError

    monkeypatch.setattr(pwd, "getpwnam", hang)
    monkeypatch.setattr(accounts, "LOOKUP_SECONDS", 0.05)
    try:
        with pytest.raises(UnavailableError, match="did not say within"):
            await look_up_account("alice", own_uid=0, min_uid=1000)
    finally:
        asked.set()


async def test_an_account_comes_with_its_groups(account: pwd.struct_passwd) -> None:
    found = await look_up_account(account.pw_name, own_uid=os.geteuid(), min_uid=1)
    assert (found.uid, found.home) == (account.pw_uid, account.pw_dir)
    assert account.pw_gid in found.groups


def test_a_group_that_is_missing_is_a_wrong_setting() -> None:
    with pytest.raises(SetupError, match="no-such-group"):
        group_id("no-such-group")
    assert group_id(None) is None

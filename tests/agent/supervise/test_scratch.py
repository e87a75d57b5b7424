"""Scratch homes: whose they are, what they say, how long they stay."""

import os
import pwd
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from carrel_agent.supervise import scratch
from carrel_agent.supervise.accounts import Account
from carrel_agent.supervise.launching import LaunchError
from carrel_agent.supervise.scratch import README, REAL_HOME, ScratchHomes
from carrel_shared.clock import ManualClock
from carrel_shared.wire.servers import ServerSpec

ID, OTHER = "0123456789ab", "ba9876543210"
SPEC = ServerSpec(
    server_id=ID,
    generation=1,
    user="alice",
    account="alice",
    base_url="/user/alice/",
    hub_prefix="/hub/",
    secret="s" * 32,
    scratch_home=True,
)


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cs", dir="/tmp") as path:
        Path(path).chmod(0o755)
        yield Path(path) / "scratch"


@pytest.fixture
def account(account: pwd.struct_passwd) -> Account:
    shell = account.pw_shell
    return Account(account.pw_name, account.pw_uid, account.pw_gid, (), account.pw_dir, shell)


def test_one_is_its_users_alone_and_says_what_it_is(place: Path, account: Account) -> None:
    homes = ScratchHomes(place, clock=ManualClock(), keep_days=3)
    spec, at_home = homes.move(SPEC, account)
    home = Path(at_home.home)
    assert home == place / ID
    assert (at_home.name, at_home.uid) == (account.name, account.uid)
    assert stat.S_IMODE(place.stat().st_mode) == 0o711
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    for each in (home, home / README, home / REAL_HOME):
        assert (each.lstat().st_uid, each.lstat().st_gid) == (account.uid, account.gid)
    assert (home / REAL_HOME).readlink() == Path(account.home)
    said = (home / README).read_text()
    assert account.home in said
    assert "deleted 3 days after" in said
    assert spec.environment == {
        "CARREL_SCRATCH_HOME": str(home),
        "CARREL_REAL_HOME": account.home,
    }
    assert spec.default_url == f"/lab/tree/{README}"
    mine = SPEC.model_copy(update={"default_url": "/tree"})
    assert homes.move(mine, account)[0].default_url == "/tree"


def test_what_is_in_it_is_there_again_until_its_days_are_over(
    place: Path, account: Account
) -> None:
    clock = ManualClock()
    homes = ScratchHomes(place, clock=clock, keep_days=3)
    home = Path(homes.move(SPEC, account)[1].home)
    deep = home / "a/b"
    deep.mkdir(parents=True)
    (deep / "work").write_text("42")
    for each in (home / "a", deep, deep / "work"):
        os.chown(each, account.uid, account.gid)
    (home / "away").symlink_to("/etc")
    Path(homes.move(SPEC.model_copy(update={"server_id": OTHER}), account)[1].home)
    clock.advance(timedelta(days=10).total_seconds())
    assert homes.sweep({ID, OTHER}) == []
    homes.note_end(ID)
    clock.advance(timedelta(days=2).total_seconds())
    assert homes.sweep({OTHER}) == []
    assert homes.move(SPEC, account)[1].home == str(home)
    assert (deep / "work").read_text() == "42"
    clock.advance(timedelta(days=4).total_seconds())
    assert homes.sweep({OTHER}) == []
    clock.advance(-timedelta(days=3).total_seconds())
    assert homes.sweep({OTHER}) == [], "the clock was ahead"
    clock.advance(timedelta(days=3).total_seconds())
    assert homes.sweep({OTHER}) == []
    assert homes.sweep({OTHER}) == [ID]
    assert not home.exists()
    assert (place / OTHER).is_dir()
    assert Path("/etc/passwd").exists()
    assert Path(account.home).is_dir()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root removes what is others'")
def test_who_keeps_theirs_from_being_removed_holds_up_nobody_else(
    place: Path, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What removes it runs as its owner, who can stop it with a signal."""
    clock = ManualClock()
    homes = ScratchHomes(place, clock=clock, keep_days=3)
    home = Path(homes.move(SPEC, account)[1].home)
    (home / "work").write_text("42")
    homes.note_end(ID)
    clock.advance(timedelta(days=4).total_seconds())
    stopped = place.with_name("rm")
    stopped.write_text("#!/bin/sh\nkill -STOP $$\n")
    stopped.chmod(0o755)
    run = subprocess.run

    def hindered(command: list[str], **options: Any) -> Any:
        # A start that asks for the same one again meanwhile gets a new one, and at once.
        made.append(homes.move(SPEC, account)[1].home)
        return run([str(stopped), *command[1:]], **options)

    made: list[str] = []
    with monkeypatch.context() as patched:
        patched.setattr(scratch, "REMOVE_SECONDS", 0.5)
        patched.setattr(subprocess, "run", hindered)
        assert homes.sweep(set()) == []
        assert homes.sweep(set()) == []
    assert made == [str(home)]
    assert not (home / "work").exists()
    assert homes.sweep({ID}) == []
    assert homes.sweep({ID}) == [ID]
    assert [entry.name for entry in place.iterdir()] == [ID]


def test_nothing_is_made_where_others_can_write(place: Path, account: Account) -> None:
    homes = ScratchHomes(place, clock=ManualClock(), keep_days=3)
    place.mkdir()
    place.chmod(0o777)
    with pytest.raises(LaunchError, match="nobody else can write to"):
        homes.move(SPEC, account)
    place.rmdir()
    place.symlink_to("/var/tmp")
    with pytest.raises(LaunchError, match="nobody else can write to"):
        homes.move(SPEC, account)


def test_nothing_is_removed_through_what_somebody_put_in_its_place(
    place: Path, account: Account
) -> None:
    """A name in /var/tmp can be had by everybody: a link there to other people's homes, say."""
    homes = ScratchHomes(place, clock=ManualClock(), keep_days=0)
    others = place.with_name("homes")
    (others / "alice").mkdir(parents=True)
    (others / "alice/thesis").write_text("years of work")
    os.utime(others / "alice", (0, 0))
    place.symlink_to(others)
    assert homes.sweep(set()) == []
    assert (others / "alice/thesis").exists()
    place.unlink()
    others.rename(place)
    place.chmod(0o777)
    assert homes.sweep(set()) == []
    assert (place / "alice/thesis").exists()
    place.chmod(0o711)
    assert homes.sweep(set()) == []
    assert homes.sweep(set()) == ["alice"], "of its own directory it does remove"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="root's directory is there from the beginning")
def test_the_place_is_roots_before_anybody_can_take_the_name(place: Path) -> None:
    homes = ScratchHomes(place, clock=ManualClock(), keep_days=3)
    homes.prepare()
    found = place.lstat()
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (0, 0o711)
    place.rmdir()
    place.symlink_to("/var/tmp")
    homes.prepare()  # says so, and nothing else
    assert place.is_symlink()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="two accounts are needed")
def test_what_was_not_finished_or_is_somebody_elses_is_made_anew(
    place: Path, account: Account
) -> None:
    homes = ScratchHomes(place, clock=ManualClock(), keep_days=3)
    home = Path(homes.move(SPEC, account)[1].home)
    os.chown(home, 0, 0)
    (home / "half").touch()
    homes.move(SPEC, account)
    assert sorted(entry.name for entry in home.iterdir()) == [README, REAL_HOME]
    other = replace(account, uid=account.uid + 1)
    homes.move(SPEC, other)
    assert home.stat().st_uid == other.uid


def test_an_agent_that_cannot_give_it_to_its_user_says_so(
    place: Path, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: account.uid + 1)
    with pytest.raises(LaunchError, match="runs as root"):
        ScratchHomes(place, clock=ManualClock(), keep_days=3).move(SPEC, account)

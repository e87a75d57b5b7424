"""Directories: where, whose, and what is refused."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from carrel_hub.up.accounts import Account, own_account
from carrel_hub.up.errors import UpError
from carrel_hub.up.layout import (
    Directory,
    Layout,
    check_readable,
    choose_layout,
    own_directories,
    prepare,
    service_directories,
)

ALICE = Account("alice", 1000, 1000, "/home/alice", "alice")
ROOT = Account("root", 0, 0, "/root", "root")
CARREL = Account("carrel", 990, 991, "/nonexistent", "carrel")


def choose(
    uid: int = 1000, state: str | None = None, run: str | None = None, **environ: str
) -> Layout:
    return choose_layout(
        uid=uid,
        home="/home/alice",
        state_dir=Path(state) if state else None,
        run_dir=Path(run) if run else None,
        environ=environ,
    )


def test_places_by_default() -> None:
    assert choose(0) == Layout(Path("/var/lib/carrel"), Path("/run/carrel"))
    state = Path("/home/alice/.local/state/carrel")
    assert choose() == Layout(state, state / "run")
    assert choose(XDG_STATE_HOME="/s", XDG_RUNTIME_DIR="/r") == Layout(
        Path("/s/carrel"), Path("/r/carrel")
    )
    assert choose(XDG_STATE_HOME="relative", XDG_RUNTIME_DIR="") == choose()


def test_places_by_choice_keep_installations_apart() -> None:
    assert choose(0, state="/srv/c").run == Path("/srv/c/run")
    assert choose(state="/srv/c", XDG_RUNTIME_DIR="/r").run == Path("/srv/c/run")
    assert choose(state="/srv/c", run="/srv/r") == Layout(Path("/srv/c"), Path("/srv/r"))


def test_a_path_too_long_for_sockets_is_refused_with_the_way_out() -> None:
    with pytest.raises(UpError, match="--run-dir"):
        choose(state="/srv/" + "x" * 90)


def test_as_root_each_directory_is_closed_to_all_but_its_service() -> None:
    layout = Layout(Path("/S"), Path("/R"))
    made = own_directories(layout, ROOT) + service_directories(layout, own=ROOT, service=CARREL)
    table = {str(d.path): (d.uid, d.gid, oct(d.mode)) for d in made}
    assert table == {
        "/S": (0, 0, "0o711"),
        "/S/up": (0, 0, "0o700"),
        "/S/hub": (990, 991, "0o700"),
        "/S/proxy": (990, 991, "0o700"),
        "/S/agent": (0, 0, "0o700"),
        "/R": (0, 0, "0o755"),
        "/R/hub": (990, 991, "0o700"),
        "/R/proxy": (990, 991, "0o700"),
        "/R/agent": (0, 991, "0o750"),
        "/R/pam": (0, 991, "0o750"),
        "/R/s": (0, 0, "0o711"),
    }


def test_as_a_user_everything_is_the_users_alone() -> None:
    layout = Layout(Path("/S"), Path("/R"))
    made = own_directories(layout, ALICE) + service_directories(layout, own=ALICE, service=ALICE)
    assert {(d.uid, d.gid, d.mode) for d in made} == {(1000, 1000, 0o700)}


def test_missing_directories_are_made_and_modes_put_right(short: Path) -> None:
    own = own_account()
    short.chmod(0o755)
    layout = Layout(short / "state", short / "run")
    wanted = own_directories(layout, own)
    before = os.umask(0o077)
    try:
        prepare(wanted, uid=own.uid)
    finally:
        os.umask(before)
    layout.own.chmod(0o755)
    prepare(wanted, uid=own.uid)
    for directory in wanted:
        status = directory.path.stat()
        assert (status.st_uid, status.st_gid) == (directory.uid, directory.gid)
        assert status.st_mode & 0o7777 == directory.mode


def test_a_directory_others_can_write_is_refused(short: Path) -> None:
    own = own_account()
    short.chmod(0o755)
    place = short / "state"
    place.mkdir()
    place.chmod(0o770)
    with pytest.raises(UpError, match="can be written by others"):
        prepare([Directory(place, own.uid, own.gid, 0o700)], uid=own.uid)


def test_a_directory_of_somebody_else_is_refused(short: Path) -> None:
    own = own_account()
    short.chmod(0o755)
    (short / "state").mkdir()
    other = replace(own, uid=own.uid + 1)
    with pytest.raises(UpError, match=f"belongs to uid {own.uid}, not to uid {other.uid}"):
        prepare([Directory(short / "state", other.uid, own.gid, 0o700)], uid=own.uid)


def test_a_symbolic_link_in_place_of_a_directory_is_not_followed(short: Path) -> None:
    own = own_account()
    short.chmod(0o755)
    (short / "elsewhere").mkdir()
    (short / "state").symlink_to(short / "elsewhere")
    with pytest.raises(UpError, match=str(short / "state")):
        prepare([Directory(short / "state", own.uid, own.gid, 0o700)], uid=own.uid)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="judging other accounts' ways needs root")
def test_as_root_the_way_there_must_be_safe_and_open_to_the_services(short: Path) -> None:
    wanted = [Directory(short / "a/state", 0, 0, 0o711)]
    (short / "a").mkdir()
    short.chmod(0o700)
    with pytest.raises(UpError, match="closed to other accounts"):
        prepare(wanted, uid=0)
    short.chmod(0o777)
    with pytest.raises(UpError, match="can be written by others"):
        prepare(wanted, uid=0)
    short.chmod(0o755)
    prepare(wanted, uid=0)


def test_a_file_the_services_cannot_read_is_refused_with_what_is_in_the_way(short: Path) -> None:
    short.chmod(0o755)
    (short / "a").mkdir(mode=0o755)
    path = short / "a/carrel.toml"
    path.touch(mode=0o644)
    check_readable(path, "--config", CARREL)
    path.chmod(0o600)
    with pytest.raises(UpError, match=f"--config {path}: .* run as carrel, to whom {path} is"):
        check_readable(path, "--config", CARREL)
    own = own_account()
    check_readable(path, "--config", own)
    check_readable(path, "--config", replace(CARREL, uid=own.uid))
    path.chmod(0o640)
    check_readable(path, "--config", replace(CARREL, gid=path.stat().st_gid))
    path.chmod(0o644)
    (short / "a").chmod(0o700)
    with pytest.raises(UpError, match=f"to whom {short}/a is closed"):
        check_readable(path, "--config", CARREL)

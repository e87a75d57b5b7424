"""What one run leaves written for the next: record, keys, lock, log."""

import fcntl
import json
import subprocess
import sys
from pathlib import Path

import pytest

from carrel_hub.up import logfile
from carrel_hub.up.errors import UpError
from carrel_hub.up.keys import load_keys, load_or_make_keys
from carrel_hub.up.lock import Holder, StateLock, read_holder
from carrel_hub.up.logfile import MergedLog
from carrel_hub.up.record import (
    Fate,
    Record,
    ServiceRecord,
    decide_fates,
    read_record,
    write_record,
)
from carrel_shared.clock import SystemClock
from carrel_shared.identity import ProcessIdentity, own_identity

ONE = ServiceRecord(ProcessIdentity(10, 1, "boot"), "aaa")


def test_a_living_service_as_wanted_is_adopted_and_any_other_replaced() -> None:
    found = dict.fromkeys(("same", "changed", "unwanted", "dead"), ONE)
    wanted = {"same": "aaa", "changed": "bbb", "dead": "aaa", "new": "aaa"}
    alive = {"same": True, "changed": True, "unwanted": True, "dead": False}
    assert decide_fates(found, wanted, alive) == {
        "same": Fate.ADOPT,
        "changed": Fate.REPLACE,
        "unwanted": Fate.REPLACE,
        "dead": Fate.FORGET,
    }


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    services = {"hub": ServiceRecord(own_identity(), "aaa")}
    record = Record("/S", "http://127.0.0.1:8000", "/x/", "alice", None, services)
    path = tmp_path / "up.json"
    write_record(path, record)
    assert read_record(path) == record
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"version": 2}', '{"version":1}', "null"])
def test_a_record_that_cannot_be_read_counts_as_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "up.json"
    assert read_record(path) is None
    path.write_text(text)
    assert read_record(path) is None


def test_keys_are_made_once_and_for_us_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    keys = load_or_make_keys(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_or_make_keys(path) == keys
    assert keys.console not in repr(keys)


def test_keys_that_others_could_read_or_that_are_damaged_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    load_or_make_keys(path)
    path.chmod(0o640)
    with pytest.raises(UpError, match="others may have read"):
        load_keys(path)
    path.chmod(0o600)
    path.write_text(json.dumps({"console": "short"}))
    with pytest.raises(UpError, match="damaged"):
        load_or_make_keys(path)


def test_the_lock_is_held_by_one_process_and_says_by_which(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert read_holder(path) == (None, False)
    lock = StateLock(path)
    assert lock.acquire()
    lock.describe(Holder(42, "http://127.0.0.1:8000/", "/R"))
    assert not StateLock(path).acquire()
    assert read_holder(path) == (Holder(42, "http://127.0.0.1:8000/", "/R"), True)
    lock.release()
    assert read_holder(path) == (Holder(42, "http://127.0.0.1:8000/", "/R"), False)
    assert StateLock(path).acquire()


def test_programs_that_we_start_do_not_inherit_the_lock(tmp_path: Path) -> None:
    lock = StateLock(tmp_path / "lock")
    assert lock.acquire()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        lock.release()
        with (tmp_path / "lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        child.communicate(b"\n")


def test_new_lines_are_printed_once_without_terminal_controls(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "carrel.log"
    path.write_text("of the last run\n")
    log = MergedLog(path, SystemClock())
    with path.open("ab", buffering=0) as service:
        service.write(b"one\x1b[31m\nhal")
        log.print_new()
        assert capfd.readouterr().out == "one[31m\n"
        service.write(b"f\n")
        log.print_new()
        log.print_new()
    assert capfd.readouterr().out == "half\n"
    log.close()


def test_a_big_log_starts_anew_under_its_writers(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logfile, "MAX_BYTES", 1000)
    path = tmp_path / "carrel.log"
    log = MergedLog(path, SystemClock())
    with path.open("ab", buffering=0) as service:
        service.write(b"x" * 1200 + b"\n")
        log.print_new()
        service.write(b"after\n")
        log.print_new()
    assert capfd.readouterr().out == "x" * 1200 + "\nafter\n"
    assert path.read_bytes() == b"after\n"
    assert (tmp_path / "carrel.log.1").stat().st_size == 1201
    log.close()


def test_a_console_that_went_away_is_no_reason_to_end() -> None:
    program = (
        "import os; from carrel_hub.up.logfile import say\n"
        "reader, writer = os.pipe(); os.dup2(writer, 1); os.close(writer); os.close(reader)\n"
        "say('one'); say('two'); os._exit(7)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 7

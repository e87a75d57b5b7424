"""Files, identities, back-off, tasks, logs and clocks: the promises others build on."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import structlog

from carrel_shared.backoff import backoff_seconds
from carrel_shared.clock import ManualClock, SystemClock
from carrel_shared.files import write_atomically
from carrel_shared.flood import FloodGate
from carrel_shared.identity import ProcessIdentity, identify, machine, own_identity, read_stat
from carrel_shared.logging import configure_logging, redact
from carrel_shared.tasks import TaskOwner


def test_a_file_is_replaced_whole_and_private(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "d"
    path.mkdir()  # a directory cannot be replaced by a file
    (path / "kept").touch()
    with pytest.raises(OSError, match="directory"):
        write_atomically(path, b"x")
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_a_process_is_itself_and_not_one_that_has_its_pid() -> None:
    me = own_identity()
    assert me.pid == os.getpid()
    assert me.is_alive()
    assert not ProcessIdentity(me.pid, me.start_ticks + 1, me.boot_id).is_alive()
    assert not ProcessIdentity(me.pid, me.start_ticks, "another boot").is_alive()


def test_a_zombie_is_not_alive() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    found = identify(child.pid)
    assert found is not None
    assert found.is_alive()
    assert child.stdin is not None
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert read_stat(child.pid) is not None
    assert not found.is_alive()
    child.wait()
    assert identify(child.pid) is None


def test_waits_double_up_to_the_longest_and_never_in_step() -> None:
    waits = [backoff_seconds(n, first=1, longest=8, rand=lambda: 0.0) for n in range(6)]
    assert waits == [1, 2, 4, 8, 8, 8]
    assert backoff_seconds(10_000, first=1, longest=8, rand=lambda: 1.0) == pytest.approx(6.4)


async def test_a_task_that_breaks_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    owner = TaskOwner()

    async def work() -> None:
        raise ValueError("boom")

    with caplog.at_level(logging.ERROR):
        task = owner.start(work(), name="breaks")
        await asyncio.wait([task])
    await owner.close()
    with pytest.raises(RuntimeError, match="closed"):
        owner.start(work(), name="late")


async def test_closing_waits_for_tasks_to_clean_up() -> None:
    owner = TaskOwner()
    ended = asyncio.Event()
    started = asyncio.Event()

    async def work() -> None:
        try:
            started.set()
            await asyncio.Event().wait()
        finally:
            ended.set()

    owner.start(work(), name="waits")
    await started.wait()
    await owner.close()
    assert ended.is_set()


@pytest.mark.parametrize(
    "name",
    ["token", "api_token", "Authorization", "cookie", "console_key", "client_secret", "password"],
)
def test_fields_named_like_secrets_are_hidden(name: str) -> None:
    assert redact(None, "info", {name: "canary"})[name] == "[hidden]"


def test_hashes_and_ids_stay_and_floods_are_cut() -> None:
    event = redact(None, "info", {"token_hash": "ab", "session_id": "x", "text": "x" * 9999})
    assert event["token_hash"] == "ab"
    assert len(event["text"]) < 2100


def test_a_log_line_cannot_be_forged(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("hub")
    structlog.get_logger("t").info("sign_in", name="eve\n00:00:00 hub INFO forged\x1b[31m")
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "\x1b" not in line


def test_the_manual_clock_moves_both_hands() -> None:
    clock = ManualClock()
    before, ticks = clock.now(), clock.monotonic()
    clock.advance(5)
    assert clock.now() - before == timedelta(seconds=5)
    assert clock.monotonic() - ticks == 5
    assert SystemClock().now().tzinfo is not None


def test_a_failpoint_kills_only_when_armed() -> None:
    code = "from carrel_shared.failpoints import failpoint; failpoint('a.b'); print('alive')"
    env = {"PATH": os.environ["PATH"]}
    inert = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True)
    assert inert.stdout == b"alive\n"
    armed = subprocess.run(
        [sys.executable, "-c", code], env=env | {"CARREL_FAILPOINT": "a.b"}, capture_output=True
    )
    assert armed.returncode == -signal.SIGKILL


def test_an_event_cannot_flood_the_log() -> None:
    clock = ManualClock()
    gate = FloodGate(clock, 3)

    def logged(name: str) -> dict[str, object] | None:
        try:
            return dict(gate(None, "info", {"event": name}))
        except structlog.DropEvent:
            return None

    assert [logged("flood") is not None for _ in range(10)] == [True] * 3 + [False] * 7
    assert logged("other") == {"event": "other"}
    clock.advance(1)
    assert logged("flood") == {"event": "flood", "left_out": 7}
    assert logged("flood") == {"event": "flood"}


def test_a_machine_is_told_by_its_installation_and_its_hardware(tmp_path: Path) -> None:
    names = [tmp_path / "machine-id", tmp_path / "product_uuid"]
    files = tuple(map(str, names))
    seen = [machine.__wrapped__(files)]
    assert seen == [""], "where neither is known nothing can be told"
    for installation, hardware in (("a", ""), ("a", "1"), ("b", "1"), ("a", "2")):
        names[0].write_text(f"{installation}\n")
        names[1].write_text(f"{hardware}\n")
        seen.append(machine.__wrapped__(files))
    assert len(set(seen)) == len(seen)
    assert machine.__wrapped__(files) == seen[-1]

"""The keeper alone, asked by a test instead of an agent."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from carrel_agent.keeper.output import (
    BYTES_A_SECOND,
    BYTES_A_TURN,
    BYTES_AT_ONCE,
    LEAST_COUNTED,
    Pace,
)
from carrel_shared.identity import identify
from support.agent_host import has_ended, wait_for

ID = "0123456789ab"


def exits_on_disk(keeper: Any) -> list[dict[str, Any]]:
    return [json.loads(p.read_text()) for p in sorted((keeper.state / "exits").glob("*.json"))]


def all_exits(agent: Any) -> list[dict[str, Any]]:
    reply, _ = agent.ask("exits")
    found: list[dict[str, Any]] = reply["exits"]
    return found


@pytest.mark.parametrize(
    ("command", "code", "number"),
    [("exit 0", 0, None), ("exit 7", 7, None), ("kill -9 $$", None, 9), ("kill -11 $$", None, 11)],
)
def test_an_exit_is_written_down_before_it_is_told(
    keeper: Any, command: str, code: int | None, number: int | None
) -> None:
    agent = keeper.start()
    started = keeper.execute(agent, "/bin/sh", "-c", command)
    event = agent.event()
    assert (event["pid"], event["start_ticks"]) == (started["pid"], started["start_ticks"])
    assert (event["code"], event["signal"]) == (code, number)
    [record] = exits_on_disk(keeper)
    assert {**record, "event": "exit"} == event
    agent.ask("forget-exit", pid=event["pid"], start_ticks=event["start_ticks"])
    assert exits_on_disk(keeper) == []
    assert all_exits(agent) == []


def test_exits_wait_for_the_next_agent_and_for_the_next_keeper(keeper: Any) -> None:
    agent = keeper.start()
    started = keeper.execute(agent, "/bin/sh", "-c", "sleep 0.1; exit 4")
    keeper.kill_agent()
    agent = keeper.next_agent()
    [first] = wait_for("the exit", lambda: all_exits(agent))
    assert (first["pid"], first["code"]) == (started["pid"], 4)
    keeper.kill()
    agent = keeper.start()
    [second] = all_exits(agent)
    assert second == first


def test_records_of_a_killed_write_or_a_bad_disk_are_put_aside(keeper: Any) -> None:
    directory = keeper.state / "exits"
    directory.mkdir()
    (directory / "1-2.json").write_text("{")
    (directory / "3-4.json.new").write_text("{}")
    agent = keeper.start()
    assert all_exits(agent) == []
    assert sorted(p.name for p in directory.iterdir()) == ["1-2.json.corrupt"]


def test_orphans_are_reaped_and_cost_no_disk(keeper: Any) -> None:
    agent = keeper.start()
    script = "for i in $(seq 50); do (setsid sh -c 'exit 3' &); done; sleep 0.3"
    server = keeper.execute(agent, "/bin/sh", "-c", script)
    assert agent.event()["pid"] == server["pid"]
    assert len(exits_on_disk(keeper)) == 1
    children = Path(f"/proc/{keeper.pid}/task/{keeper.pid}/children")
    wait_for("no zombies", lambda: len(children.read_text().split()) == 1)


REAPING = """
import os, sys
from carrel_agent.keeper.keeper import REAPED_A_TURN, Keeper
from carrel_agent.keeper.options import Options

keeper = Keeper(Options(sys.argv[1], []), {})
children = [os.fork() or os._exit(0) for _ in range(2 * REAPED_A_TURN + 1)]
for child in children:
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
print(*(keeper._reap() for _ in range(3)))
"""


def test_reaping_ends_though_there_is_more_to_reap(keeper: Any) -> None:
    """Who forks in a loop may make orphans faster than they are reaped; others wait for a turn."""
    command = [sys.executable, "-I", "-c", REAPING, str(keeper.state)]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["False", "False", "True"]


def test_a_process_can_be_watched_after_its_end(keeper: Any) -> None:
    """As a zygote's: its pid is told to the agent, and by then it may have ended."""
    agent = keeper.start()
    keeper.execute(agent, "/bin/sh", "-c", "(sh -c 'echo $$; exit 5' &)")
    agent.event()
    log = keeper.state / "logs" / f"{ID}.log"
    pid = int(wait_for("the pid", lambda: log.exists() and log.read_text()))
    reply, _ = agent.ask("watch", pid=pid, start_ticks=1)
    assert reply["child"] is False
    stranger = identify(os.getpid())
    assert stranger is not None
    reply, _ = agent.ask("watch", pid=stranger.pid, start_ticks=stranger.start_ticks)
    assert reply["child"] is False


def test_output_is_kept_in_two_files_and_the_keeper_stays_awake(keeper: Any) -> None:
    agent = keeper.start()
    server = keeper.execute(agent, "/bin/sh", "-c", "yes $(printf %0500d 7)")
    older = keeper.state / "logs" / f"{ID}.log.1"
    wait_for("a full ring", older.exists)
    for _ in range(50):
        agent.ask("exits")
    os.killpg(server["pid"], signal.SIGKILL)
    assert agent.event()["signal"] == 9
    sizes = {p.name: p.stat().st_size for p in older.parent.iterdir() if p.suffix != ".fifo"}
    assert set(sizes) == {f"{ID}.log", f"{ID}.log.1"}
    assert all(0 < size <= 1 << 20 for size in sizes.values())
    assert older.stat().st_mode & 0o777 == 0o600


def test_output_comes_at_once_and_then_at_a_pace() -> None:
    """Nobody keeps the keeper, or the disk that is everybody's, busy by printing."""
    pace, now, rested = Pace(100.0), 100.0, 0.0
    assert pace.rest_after(BYTES_AT_ONCE, now) == 0
    for _ in range(10):
        rest = pace.rest_after(BYTES_A_TURN, now)
        rested, now = rested + rest, now + rest
    assert rested == pytest.approx(10 * BYTES_A_TURN / BYTES_A_SECOND)
    assert pace.rest_after(1, now) == pytest.approx(LEAST_COUNTED / BYTES_A_SECOND)
    now += 3600
    assert pace.rest_after(BYTES_AT_ONCE, now) == 0, "no more is saved up"
    assert pace.rest_after(1, now - 60) > 0, "nor does a clock that is off lend any"


def test_what_rests_is_read_on_and_can_be_closed(keeper: Any) -> None:
    agent = keeper.start()
    flood = "head -c 6000000 /dev/zero; echo end; kill -STOP $$; cat /dev/zero"
    server = keeper.execute(agent, "/bin/sh", "-c", flood)
    log = keeper.state / "logs" / f"{ID}.log"
    wait_for("what came late", lambda: b"end" in _ring_of(log))
    os.kill(server["pid"], signal.SIGCONT)
    wait_for("a flood", lambda: b"end" not in _ring_of(log))
    agent.ask("close-log", log=ID)
    os.killpg(server["pid"], signal.SIGKILL)
    assert agent.event()["signal"] == 9
    agent.ask("log", log=ID)
    agent.ask("close-log", log=ID)


def _ring_of(log: Path) -> bytes:
    read = b""
    for path in (log.with_name(f"{log.name}.1"), log):
        with contextlib.suppress(FileNotFoundError):  # it is being put aside
            read += path.read_bytes()
    return read


def test_last_words_are_there_when_the_death_is_told(keeper: Any) -> None:
    agent = keeper.start()
    keeper.execute(agent, "/bin/sh", "-c", "seq 20000; echo goodbye; exit 1")
    agent.event()
    assert (keeper.state / "logs" / f"{ID}.log").read_text().endswith("20000\ngoodbye\n")


def test_nobody_gets_a_broken_pipe_when_the_keeper_is_replaced(keeper: Any) -> None:
    agent = keeper.start()
    words = keeper.base / "words"  # what it is to print
    os.mkfifo(words, 0o644)
    keeper.base.chmod(0o711)
    echo = 'while read word; do echo "$word" || exit 9; done < "$0"'
    server = keeper.execute(agent, "/bin/sh", "-c", echo, str(words))
    log = keeper.state / "logs" / f"{ID}.log"
    with words.open("w", buffering=1) as say:
        say.write("one\n")
        wait_for("output", lambda: log.exists() and log.read_text() == "one\n")
        keeper.kill()
        say.write("two\nthree\n")
        agent = keeper.start()
        say.write("four\n")
        wait_for("not a line is lost", lambda: log.read_text() == "one\ntwo\nthree\nfour\n")
        assert not has_ended(server["pid"])
        reply, _ = agent.ask("watch", pid=server["pid"], start_ticks=server["start_ticks"])
        assert reply["child"] is False, "its status goes to another parent"


def test_a_closed_log_leaves_no_fifo_and_a_fresh_one_no_old_lines(keeper: Any) -> None:
    agent = keeper.start()
    keeper.execute(agent, "/bin/echo", "before")
    agent.event()
    _, [output] = agent.ask("log", log=ID, fresh=True)
    os.write(output, b"after\n")
    os.close(output)
    agent.ask("close-log", log=ID)
    directory = keeper.state / "logs"
    assert (directory / f"{ID}.log").read_text() == "after\n"
    assert [p.name for p in directory.iterdir()] == [f"{ID}.log"]


def test_wrong_requests_are_answered_and_change_nothing(keeper: Any) -> None:
    agent = keeper.start()
    for fields in (
        {"op": "log", "log": "../../etc/passwd"},
        {"op": "log", "log": 5},
        {"op": "log"},
        {"op": "exec", "log": ID},
        {"op": "watch", "pid": "x", "start_ticks": 1},
        {"op": "make-coffee"},
    ):
        reply, descriptors = agent.ask(**fields)
        assert reply["error"]
        assert descriptors == []
    agent.channel.send(b"no json at all")
    assert all_exits(agent) == []
    assert list((keeper.state / "logs").iterdir()) == []


def test_an_agent_that_crashes_is_started_again_ever_later(keeper: Any) -> None:
    first = keeper.start(CARREL_FAILPOINT="agent.start.intent")
    assert first.failpoint == "agent.start.intent"
    first.end(1)
    second = keeper.next_agent()
    assert second.failpoint == "-", "a failpoint ends the first agent only"
    second.end(1)
    keeper.next_agent()
    assert "again_in_seconds=0.2" in keeper.log()
    assert "again_in_seconds=0.4" in keeper.log()


def test_wrong_settings_end_the_keeper(keeper: Any) -> None:
    keeper.start().end(78)
    assert keeper.process.wait(60) == 78


def test_a_zygote_dies_before_the_next_agent_is_born(keeper: Any) -> None:
    fake = keeper.base / "zygote"
    fake.write_text("#!/bin/sh\nexec sleep 100\n")
    fake.chmod(0o755)
    agent = keeper.start()
    reply, [end] = agent.ask("zygote", python=str(fake))
    os.close(end)
    environ = Path(f"/proc/{reply['pid']}/environ")
    wait_for("it to be executed", lambda: b"CARREL_ZYGOTE_FD" in environ.read_bytes())
    names = {each.split(b"=")[0].decode() for each in environ.read_bytes().split(b"\0") if each}
    assert names - {"PWD"} == {"PATH", "LANG", "CARREL_ZYGOTE_FD"}
    replacement, [end] = agent.ask("zygote", python=str(fake))
    os.close(end)
    wait_for("the older one's end", lambda: has_ended(reply["pid"]))
    keeper.kill_agent()
    keeper.next_agent()
    assert has_ended(replacement["pid"])
    failed, _ = keeper.agents[-1].ask("zygote", python="/nowhere/python")
    assert "No such file" in failed["error"]


def test_terminated_it_ends_its_helpers_and_leaves_the_servers(keeper: Any) -> None:
    agent = keeper.start()
    server = keeper.execute(agent, "/bin/sleep", "100")
    _, [end] = agent.ask("zygote", python="/bin/sleep")
    pid = keeper.agent_pid()
    keeper.process.terminate()
    assert keeper.process.wait(60) == 0
    os.close(end)
    assert has_ended(pid)
    assert not has_ended(server["pid"])


def test_an_agent_that_hangs_at_the_end_is_killed_in_time(keeper: Any) -> None:
    keeper.start(STOP_SECONDS="0.3")
    pid = keeper.agent_pid()
    os.kill(pid, signal.SIGSTOP)
    keeper.process.terminate()
    assert keeper.process.wait(60) == 0
    assert has_ended(pid)


def test_it_stays_small(keeper: Any) -> None:
    agent = keeper.start()
    agent.ask("exits")
    rollup = Path(f"/proc/{keeper.pid}/smaps_rollup").read_text()
    private = sum(
        int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_Dirty")
    )
    assert private < 8 * 1024, "kB; without site-packages and what they pull in"


def test_a_listener_goes_to_the_server_and_stays_nowhere_else(keeper: Any) -> None:
    agent = keeper.start()
    before = len(list(Path(f"/proc/{keeper.pid}/fd").iterdir()))
    with socket.socket(socket.AF_UNIX):
        keeper.execute(agent, "/bin/sleep", "100")
        keeper.execute(agent, "/nowhere/at-all")
    agent.event()
    after = len(list(Path(f"/proc/{keeper.pid}/fd").iterdir()))
    assert after <= before + 2, "one FIFO and its ring"

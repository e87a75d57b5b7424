"""Servers from start to end, good ones and bad, run by a real agent under a real keeper."""

import contextlib
import os
import signal
import socket
import struct
import subprocess
from pathlib import Path

import pytest

from carrel_shared.identity import identify
from support.agent_host import AgentHost, has_ended, wait_for


def peer_uid(target: str) -> int:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(target.removeprefix("unix:"))
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return int(struct.unpack("3i", raw)[1])


def test_a_server_becomes_ready_and_stops(host: AgentHost) -> None:
    report = host.started("good")
    assert report["runner"] == "exec"
    assert report["target"] == f"unix:{host.run}/s/{report['server_id']}/http.sock"
    assert report["peer_uid"] == host.account.pw_uid
    assert peer_uid(report["target"]) == host.account.pw_uid
    assert report["pid"] == identify(report["pid"]).pid  # type: ignore[union-attr]

    assert host.stop_server(report["server_id"]).status_code == 202
    ended = host.wait_state(report["server_id"], "stopped")
    assert ended["target"] is None
    assert ended["exit"]["code"] == 0
    assert ended["exit"]["summary"] == "It was stopped: a test asked."
    assert not (host.run / "s" / report["server_id"]).exists()
    assert not list((host.state / "logs").glob("*.fifo"))
    exits = host.state / "exits"
    wait_for("its exit to be forgotten", lambda: not list(exits.iterdir()))


def test_a_server_that_never_answers_fails_with_its_last_words(host: AgentHost) -> None:
    words = "I say nothing useful"  # by a shell, which is quick to
    command = ["/bin/sh", "-c", f"echo {words}; exec sleep 1000"]
    spec = host.spec(command=command, start_timeout_seconds=2)
    assert host.put(spec).status_code == 202
    report = host.wait_state(spec["server_id"], "failed")
    assert report["exit"]["cause"] == "never_ready"
    assert "2 seconds" in report["exit"]["summary"]
    assert words in report["exit"]["log_tail"]
    assert has_ended(report["pid"])


def test_errors_are_no_answer(host: AgentHost) -> None:
    spec = host.spec("broken", start_timeout_seconds=0.5)
    host.put(spec)
    report = host.wait_state(spec["server_id"], "failed")
    assert report["exit"]["cause"] == "never_ready"


def test_an_exit_at_once_is_told_with_status_and_reason(host: AgentHost) -> None:
    spec = host.spec("exit", "3")
    host.put(spec)
    exit_ = host.wait_state(spec["server_id"], "failed")["exit"]
    assert (exit_["cause"], exit_["code"]) == ("exited", 3)
    assert "status 3" in exit_["summary"]
    assert "libfoo.so" in exit_["summary"]
    assert exit_["command"].endswith("small_server.py exit 3")


def test_a_program_that_does_not_exist_is_named(host: AgentHost) -> None:
    spec = host.spec(command=["/nowhere/at-all"])
    host.put(spec)
    exit_ = host.wait_state(spec["server_id"], "failed")["exit"]
    assert exit_["cause"] == "start_failed"
    assert "/nowhere/at-all does not exist on this host" in exit_["summary"]
    assert "install it" in exit_["advice"]


def test_a_kill_from_outside_is_told_with_its_signal(host: AgentHost) -> None:
    report = host.started("good")
    os.kill(report["pid"], signal.SIGKILL)
    ended = host.wait_state(report["server_id"], "failed")
    assert ended["exit"]["cause"] == "signalled"
    assert ended["exit"]["signal"] == 9
    assert "memory" in ended["exit"]["summary"]


def test_a_server_that_ignores_signals_is_killed(host: AgentHost) -> None:
    report = host.started("stubborn")
    host.stop_server(report["server_id"], interrupt_seconds=0.1, terminate_seconds=0.1)
    ended = host.wait_state(report["server_id"], "stopped")
    assert ended["exit"]["signal"] == 9
    assert has_ended(report["pid"])


def test_a_stopped_process_ends_too(host: AgentHost) -> None:
    report = host.started("good")
    os.kill(report["pid"], signal.SIGSTOP)
    host.stop_server(report["server_id"], interrupt_seconds=0.1, terminate_seconds=0.5)
    host.wait_state(report["server_id"], "stopped")


@pytest.mark.skipif(os.geteuid() != 0, reason="without root the test's own files are its user's")
def test_daemons_that_hide_end_with_their_server(host: AgentHost) -> None:
    place = host.base / "daemons"
    place.mkdir()
    place.chmod(0o777)
    files = [place / "forgot", place / "marked"]
    report = host.started("daemon", *map(str, files))
    pids = [int(wait_for("a daemon", lambda f=f: f.exists() and f.read_text())) for f in files]  # type: ignore[misc]
    assert not any(map(has_ended, pids))
    host.stop_server(report["server_id"])
    host.wait_state(report["server_id"], "stopped")
    assert all(map(has_ended, pids))


def test_what_floods_its_log_fills_two_files_and_harms_nobody(host: AgentHost) -> None:
    flooding = host.started("flood")
    ring = host.state / "logs" / f"{flooding['server_id']}.log"
    wait_for("a full ring", lambda: Path(f"{ring}.1").exists())
    other = host.started("good")
    assert host.lines(flooding["server_id"], 2)[-1].startswith("xxx")
    for report in (flooding, other):
        host.stop_server(report["server_id"])
        host.wait_state(report["server_id"], "stopped")
    kept = {p.name: p.stat().st_size for p in ring.parent.glob(f"{flooding['server_id']}*")}
    assert set(kept) == {ring.name, f"{ring.name}.1"}
    assert max(kept.values()) <= 1 << 20


def test_a_stop_before_the_start_is_done_wins(host: AgentHost) -> None:
    spec = host.spec("silent")
    host.put(spec)
    assert host.stop_server(spec["server_id"], interrupt_seconds=0.2).status_code == 202
    assert host.wait_state(spec["server_id"], "stopped")["exit"]["cause"] == "stopped"


@pytest.mark.parametrize("runner", ["exec", "fork"])
def test_a_server_starts_where_its_profile_says(host: AgentHost, runner: str) -> None:
    home = Path(host.account.pw_dir)
    course = home / "course"
    course.mkdir(exist_ok=True)
    if os.geteuid() == 0:
        os.chown(course, host.account.pw_uid, host.account.pw_gid)
    mode = () if runner == "fork" else ("good",)
    for cwd, found in (("course", course), (str(course), course), ("none", home)):
        report = host.started(*mode, runner=runner, cwd=cwd, start_timeout_seconds=90)
        assert Path(f"/proc/{report['pid']}/cwd").readlink() == found
        lines = host.wait_line(report["server_id"], "serving " if mode else "Jupyter Server")
        assert any(f"starting in {home} instead" in line for line in lines) == (found == home)
        host.stop_server(report["server_id"])
        host.wait_state(report["server_id"], "stopped")


def test_a_server_gets_an_environment_of_its_own(host: AgentHost) -> None:
    report = host.started("good", environment={"COURSE": "physics"})
    raw = Path(f"/proc/{report['pid']}/environ").read_bytes().split(b"\0")
    names = {entry.split(b"=")[0].decode() for entry in raw if entry}
    assert b"COURSE=physics" in raw
    assert f"HOME={host.account.pw_dir}".encode() in raw
    assert not [n for n in names if n.startswith(("CARREL_AGENT", "CARREL_KEEPER"))]
    host.stop_server(report["server_id"])
    host.wait_state(report["server_id"], "stopped")


def test_output_of_an_earlier_start_is_not_taken_for_this_ones(host: AgentHost) -> None:
    spec = host.spec("exit", "3")
    host.put(spec)
    host.wait_state(spec["server_id"], "failed")
    again = {**host.spec("good"), "server_id": spec["server_id"], "generation": 2}
    assert host.put(again).status_code == 202
    host.wait_state(spec["server_id"], "ready")
    assert not [line for line in host.lines(spec["server_id"]) if "libfoo" in line]
    host.stop_server(spec["server_id"], generation=2)
    host.wait_state(spec["server_id"], "stopped")


def test_output_is_followed_until_the_server_ends(host: AgentHost) -> None:
    server = host.started("good")["server_id"]
    with host.client.stream(f"/servers/{server}/log/stream?lines=5") as lines:
        assert next(lines).startswith("serving ")
        fifo = host.state / "logs" / f"{server}.fifo"
        with fifo.open("w") as output:
            output.write("colour \x1b[31mred\x1b[0m\nhalf a ")
            output.flush()
            assert next(lines) == "colour red"
            output.write("line\n")
        assert next(lines) == "half a line"
        host.stop_server(server)
        assert list(lines) == []


def test_output_is_followed_from_file_to_file(host: AgentHost) -> None:
    server = host.started("count", str(35_000))["server_id"]
    with host.client.stream(f"/servers/{server}/log/stream?lines=1") as lines:
        assert next(lines).startswith("serving ")
        os.kill(host.report(server)["pid"], signal.SIGUSR1)
        numbers = []
        for line in lines:
            if line.startswith("number "):
                numbers.append(int(line.split()[1]))
            if len(numbers) == 35_000:
                break  # more than one file of the ring, less than two
    assert numbers == list(range(35_000))
    host.stop_server(server)
    host.wait_state(server, "stopped")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="a file system is mounted by root")
def test_a_full_home_is_told(host: AgentHost) -> None:
    home = Path(host.account.pw_dir)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", home], check=True)
    try:
        with contextlib.suppress(OSError):
            (home / "big").write_bytes(b"x" * 100_000)
        program = "open('more', 'wb').write(b'x' * 100_000)"
        spec = host.spec(command=["/usr/bin/python3", "-c", program])
        os.chown(home, host.account.pw_uid, host.account.pw_gid)
        host.put(spec)
        exit_ = host.wait_state(spec["server_id"], "failed")["exit"]
    finally:
        subprocess.run(["umount", home], check=True)
    assert "The disk that holds your home is full." in exit_["summary"]
    assert "Delete" in exit_["advice"]
    assert any("No space left on device" in line for line in exit_["log_tail"])

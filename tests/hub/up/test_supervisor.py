"""Services are started, watched, started again, taken over and ended."""

import os
import signal
import sys
from pathlib import Path

import pytest

from carrel_hub.up import supervisor as supervisor_module
from carrel_hub.up.errors import UpError
from carrel_hub.up.launch import Watched, launch
from carrel_shared.identity import ProcessIdentity
from support.processes import is_alive
from support.supervised import Bench, turn_until


def test_services_start_answer_and_end_together(bench: Bench) -> None:
    supervisor = bench.supervisor(bench.spec("one"), bench.spec("two"))
    turn_until(supervisor, lambda: supervisor.all_up)
    pids = [bench.pid("one"), bench.pid("two")]
    assert [os.getsid(pid) for pid in pids] == pids
    supervisor.stop()
    assert not any(is_alive(pid) for pid in pids)
    assert bench.recorded == {}


def test_a_service_sees_only_its_own_environment_and_a_closed_input(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARREL_HUB__CONSOLE_KEY", "somebody else's")
    supervisor = bench.supervisor(bench.spec("one"))
    turn_until(supervisor, lambda: supervisor.all_up)
    pid = bench.pid("one")
    seen = bench.environment_of("one")
    assert {name: seen[name] for name in seen if name != "LC_CTYPE"} == {
        "PATH": "/usr/bin:/bin",
        "CARREL_TEST": "one",
    }
    proc = Path(f"/proc/{pid}")
    assert str((proc / "fd/0").readlink()) == "/dev/null"
    assert str((proc / "cwd").readlink()) == "/"
    assert len(list((proc / "fd").iterdir())) == 4, "three standard ones and its listener"
    assert "Max core file size        0 " in (proc / "limits").read_text()
    supervisor.stop()


def test_a_service_that_is_killed_comes_back_and_the_others_run_on(bench: Bench) -> None:
    supervisor = bench.supervisor(bench.spec("one"), bench.spec("two"))
    turn_until(supervisor, lambda: supervisor.all_up)
    before = {name: bench.pid(name) for name in ("one", "two")}
    os.kill(before["one"], signal.SIGKILL)
    turn_until(supervisor, lambda: not supervisor.all_up)
    turn_until(supervisor, lambda: supervisor.all_up)
    assert bench.pid("one") != before["one"]
    assert bench.pid("two") == before["two"]
    assert "one was killed by signal 9 and is started again" in bench.log_text()
    assert "one is back" in bench.log_text()
    supervisor.stop()


def test_a_stubborn_service_is_killed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "STOP_SECONDS", 0.3)
    supervisor = bench.supervisor(bench.spec("one", "stubborn"))
    turn_until(supervisor, lambda: supervisor.all_up)
    pid = bench.pid("one")
    supervisor.stop()
    assert not is_alive(pid)


def test_what_a_service_left_in_its_session_ends_with_it_and_the_rest_stays(bench: Bench) -> None:
    supervisor = bench.supervisor(bench.spec("one", "child"))
    turn_until(supervisor, lambda: supervisor.all_up)
    inside, outside = (bench.left_behind("one", where) for where in ("inside", "outside"))
    try:
        supervisor.stop()
        turn_until(supervisor, lambda: not is_alive(inside))
        assert is_alive(outside)
    finally:
        os.kill(outside, signal.SIGKILL)


def test_wrong_settings_end_the_run_with_what_the_service_said(
    bench: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    supervisor = bench.supervisor(bench.spec("one", f"exit={os.EX_CONFIG}"), bench.spec("two"))
    with pytest.raises(UpError, match=r"one ended with status 78.*\n.*carrel\.log"):
        turn_until(supervisor, lambda: False)
    assert "the setting colour is wrong" in capfd.readouterr().out
    supervisor.stop()
    assert bench.log_text().count("fake service one begins") == 1


def test_a_service_that_never_answers_is_given_up_after_three_tries(bench: Bench) -> None:
    supervisor = bench.supervisor(bench.spec("one", "exit=1"))
    with pytest.raises(UpError, match="it ended 3 times before it ever answered"):
        turn_until(supervisor, lambda: False)
    assert bench.log_text().count("fake service one begins") == 3


def test_a_deaf_service_is_started_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "ANSWER_SECONDS", 3.0)  # it has begun by then
    supervisor = bench.supervisor(bench.spec("one", "deaf"))
    turn_until(supervisor, lambda: bench.log_text().count("fake service one begins") == 2)
    assert "one does not answer" in bench.log_text()
    supervisor.stop()


def test_a_program_that_cannot_be_executed_is_named(bench: Bench) -> None:
    supervisor = bench.supervisor(bench.spec("one", before=("/nonexistent/program",)))
    with pytest.raises(UpError, match="/nonexistent/program cannot be started: No such file"):
        supervisor.turn()
    supervisor.stop()


def test_preparation_comes_first_and_once_and_its_failure_counts(bench: Bench) -> None:
    ready = bench.directory / "prepared"
    prepare = (sys.executable, "-c", f"open({str(ready)!r}, 'a').write('x')")
    supervisor = bench.supervisor(bench.spec("one", before=prepare))
    turn_until(supervisor, lambda: supervisor.all_up)
    os.kill(bench.pid("one"), signal.SIGKILL)
    turn_until(supervisor, lambda: not supervisor.all_up)
    turn_until(supervisor, lambda: supervisor.all_up)
    assert ready.read_text() == "x"
    supervisor.stop()

    broken = bench.supervisor(
        bench.spec("two", before=(sys.executable, "-c", "raise SystemExit(78)"))
    )
    with pytest.raises(UpError, match="two ended with status 78"):
        turn_until(broken, lambda: False)


def test_variables_of_the_first_start_are_not_there_at_the_second(bench: Bench) -> None:
    spec = bench.spec("one", first_start={"CARREL_FAILPOINT": "somewhere"})
    supervisor = bench.supervisor(spec)
    turn_until(supervisor, lambda: supervisor.all_up)
    assert bench.environment_of("one")["CARREL_FAILPOINT"] == "somewhere"
    os.kill(bench.pid("one"), signal.SIGKILL)
    turn_until(supervisor, lambda: not supervisor.all_up)
    turn_until(supervisor, lambda: supervisor.all_up)
    assert "CARREL_FAILPOINT" not in bench.environment_of("one")
    supervisor.stop()


def test_another_supervisor_takes_a_living_service_over(bench: Bench) -> None:
    first = bench.supervisor(bench.spec("one"))
    turn_until(first, lambda: first.all_up)
    identity = bench.recorded["one"].identity

    second = bench.supervisor(bench.spec("one"))
    assert second.adopt("one", identity)
    turn_until(second, lambda: second.all_up)
    assert bench.log_text().count("fake service one begins") == 1
    os.kill(identity.pid, signal.SIGKILL)
    turn_until(second, lambda: not second.all_up)
    turn_until(second, lambda: second.all_up)
    assert bench.recorded["one"].identity != identity
    second.stop()


def test_a_reused_pid_is_not_taken_over(bench: Bench) -> None:
    first = bench.supervisor(bench.spec("one"))
    turn_until(first, lambda: first.all_up)
    found = bench.recorded["one"].identity
    later = ProcessIdentity(found.pid, found.start_ticks + 1, found.boot_id)
    second = bench.supervisor(bench.spec("one"))
    assert not second.adopt("one", later)
    first.stop()


def test_a_process_nobody_wrote_down_never_begins(bench: Bench) -> None:
    spec = bench.spec("one")
    seen: list[ProcessIdentity] = []

    def full_disk(identity: ProcessIdentity) -> None:
        seen.append(identity)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        launch(
            spec.argv,
            spec.environment,
            spec.account,
            output=bench.log.descriptor,
            written_down=full_disk,
        )
    watched = Watched(seen[0], is_child=True)
    assert watched.has_ended(60)
    watched.finish()
    assert bench.log_text() == ""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="changing accounts needs root")
def test_another_accounts_service_has_no_way_back_to_root(bench: Bench) -> None:
    from dataclasses import replace

    from carrel_hub.up.accounts import find_account

    nobody = find_account("nobody")
    assert nobody is not None
    program = "print(open('/proc/self/status').read(), flush=True); import os; os.setuid(0)"
    spec = replace(bench.spec("one"), account=nobody, argv=("/usr/bin/python3", "-c", program))
    supervisor = bench.supervisor(spec)
    turn_until(supervisor, lambda: "PermissionError" in bench.log_text())
    supervisor.stop()
    lines = dict(line.split(":\t", 1) for line in bench.log_text().splitlines() if ":\t" in line)
    assert lines["Uid"].split() == [str(nobody.uid)] * 4
    assert lines["Gid"].split() == [str(nobody.gid)] * 4
    assert lines["Groups"].split() == [str(nobody.gid)]
    assert {int(lines[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {0}

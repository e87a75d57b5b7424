"""`carrel up` from its start to its end, as a process, with fake services."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.installation import Installation
from support.ports import free_port
from support.processes import is_alive, leftovers, wait_until

PROGRAM = (sys.executable, str(Path(__file__).parents[2] / "support/fake_up.py"))
NAMES = ("hub", "proxy", "keeper")
Run = Callable[..., Installation]


@pytest.fixture
def run() -> Iterator[Run]:
    """Make an installation with fake services; keywords say how they behave."""
    with ExitStack() as stack:

        def make(*options: str, start: bool = True, **behaviours: str) -> Installation:
            environ = {f"FAKE_{name.upper()}": words for name, words in behaviours.items()}
            as_root = ("--service-user", "nobody") if os.geteuid() == 0 else ()
            made = Installation(program=PROGRAM, environ=environ, options=(*as_root, *options))
            stack.callback(made.clean)
            if start:
                made.start()
            return made

        yield make


def pids(installation: Installation) -> dict[str, int]:
    return {name: installation.pid_of(name) for name in NAMES}


def leaves_nothing(installation: Installation) -> bool:
    return leftovers(installation.base) == []


def test_it_says_where_to_click_and_ends_with_ctrl_c(run: Run) -> None:
    carrel = run()
    said = carrel.output()
    name = carrel.user
    assert f"Carrel is running at http://127.0.0.1:{carrel.port}/\n" in said
    assert f"Sign in as {name} (administrator), once, within ten minutes:\n" in said
    assert carrel.link == f"http://127.0.0.1:{carrel.port}/hub/sign-in/a-secret"
    assert "a-secret" not in carrel.log_text(), "links do not go into the log"
    assert carrel.stop() == 0
    assert leaves_nothing(carrel)
    assert carrel.output().endswith("Carrel has ended.\n")


def test_ctrl_c_names_notebooks_and_stops_them(run: Run) -> None:
    carrel = run(hub="notebooks=alice,bob/work")
    assert carrel.stop() == 0
    assert "Stopping the notebook servers of alice, bob/work." in carrel.output()
    assert "Still running" not in carrel.output()


def test_notebooks_that_do_not_stop_in_time_are_left_and_named(run: Run) -> None:
    carrel = run(hub="notebooks=alice clinging", notebook_seconds="0.4")
    assert carrel.stop() == 0
    assert "Still running: the notebook server of alice." in carrel.output()
    assert leaves_nothing(carrel)


def test_a_second_ctrl_c_ends_at_once(run: Run) -> None:
    carrel = run(hub="notebooks=alice clinging", notebook_seconds="60")
    carrel.send(signal.SIGINT)
    wait_until(lambda: "Stopping" in carrel.output(), 60, carrel.output)
    assert carrel.stop() == 0
    assert leaves_nothing(carrel)


@pytest.mark.parametrize(
    ("options", "number"),
    [((), signal.SIGTERM), ((), signal.SIGHUP), (("--keep",), signal.SIGINT)],
)
def test_notebooks_are_kept_by_sigterm_sighup_and_on_request(
    run: Run, options: tuple[str, ...], number: signal.Signals
) -> None:
    carrel = run(*options, hub="notebooks=alice")
    carrel.send(number)
    assert carrel.wait_for_end() == 0
    assert "Stopping" not in carrel.output()
    assert "Left running: the notebook server of alice." in carrel.output()
    assert leaves_nothing(carrel)


def test_ctrl_c_while_it_starts_ends_it(run: Run) -> None:
    carrel = run(start=False, keeper="deaf")
    carrel.start(wait=False)
    wait_until(lambda: carrel.find_pid("keeper") is not None, 60, carrel.output)
    assert carrel.stop() == 0
    assert leaves_nothing(carrel)


def test_a_new_up_takes_over_what_a_killed_one_left(run: Run) -> None:
    carrel = run()
    before = pids(carrel)
    carrel.kill_up()
    assert all(is_alive(pid) for pid in before.values())
    status = carrel.run_cli("status")
    assert status.returncode == 0
    assert "takes over what runs" in status.stdout
    carrel.start()
    assert pids(carrel) == before
    assert "Taking over hub, which is still running" in carrel.output()
    carrel.kill("hub")
    wait_until(lambda: carrel.find_pid("hub") not in (None, before["hub"]), 60, carrel.output)
    assert carrel.stop() == 0
    assert leaves_nothing(carrel)


def test_a_new_up_replaces_what_was_started_with_other_settings(run: Run) -> None:
    carrel = run()
    before = pids(carrel)
    carrel.kill_up()
    carrel.port = free_port()
    carrel.start()
    after = pids(carrel)
    assert "Replacing proxy, which was started with other settings." in carrel.output()
    assert after["proxy"] != before["proxy"]
    assert not is_alive(before["proxy"])
    assert after["hub"] != before["hub"], "servers are told the port where its API is"
    assert after["keeper"] == before["keeper"]


def test_a_second_up_says_who_is_there_and_changes_nothing(run: Run) -> None:
    carrel = run()
    before = pids(carrel)
    second = carrel.run_cli("up", "--bind", f"127.0.0.1:{free_port()}")
    assert second.returncode == 1
    assert f"process {carrel.up_pid}, {carrel.url}" in second.stderr
    assert f"link --state-dir {carrel.state_dir}" in second.stderr
    assert pids(carrel) == before


def test_another_installation_is_kept_out_of_the_same_run_directory(run: Run) -> None:
    carrel = run()
    other = run(start=False)
    other.run_dir = carrel.run_dir
    other.start(wait=False)
    assert other.wait_for_end() == 1
    assert f"{carrel.run_dir} is in use by the Carrel whose state is in" in other.output()
    assert all(is_alive(pid) for pid in pids(carrel).values())


def test_link_and_status_are_for_a_running_carrel(run: Run) -> None:
    carrel = run(hub="notebooks=alice")
    assert carrel.new_link() == carrel.link
    status = carrel.run_cli("status")
    assert status.returncode == 0
    assert f"up         process {carrel.up_pid}" in status.stdout
    assert f"hub        process {carrel.pid_of('hub')}" in status.stdout
    assert "alice (ready)" in status.stdout
    carrel.stop()
    assert carrel.run_cli("status").returncode == 3
    refused = carrel.run_cli("link")
    assert refused.returncode == 1
    assert "Carrel does not run" in refused.stderr


def test_wrong_settings_end_it_with_the_services_own_words(run: Run) -> None:
    carrel = run(start=False, proxy="exit=78")
    carrel.start(wait=False)
    assert carrel.wait_for_end() == 1
    assert "proxy ended with status 78: its settings cannot be used" in carrel.output()
    assert "the setting colour is wrong" in carrel.output()
    assert "Traceback" not in carrel.output()
    assert leaves_nothing(carrel)


def test_a_busy_port_is_said_before_anything_starts(run: Run) -> None:
    import socket

    carrel = run(start=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", carrel.port))
        taken.listen()
        carrel.start(wait=False)
        assert carrel.wait_for_end() == 1
    assert f"port {carrel.port} is in use by process {os.getpid()}" in carrel.output()
    assert not carrel.layout.log.exists()


def test_everything_stays_below_its_two_directories(run: Run) -> None:
    carrel = run()
    names = {path.name for path in carrel.state_dir.iterdir()}
    assert names == {"up", "hub", "proxy", "agent", "fake_service.py"}
    assert {path.name for path in carrel.layout.own.iterdir()} == {
        "keys.json",
        "lock",
        "carrel.log",
    }
    assert carrel.layout.own.stat().st_mode & 0o777 == 0o700
    for path in carrel.layout.own.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
    assert "pam" in {path.name for path in carrel.run_dir.iterdir()} or os.geteuid() != 0

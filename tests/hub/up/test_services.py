"""`carrel up` with the real services, which die one after the other while it watches."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.accounts import Account, temporary_account
from support.installation import Installation
from support.processes import command_lines, is_alive, leftovers, wait_until

pytestmark = pytest.mark.timeout(180)

IS_ROOT = os.geteuid() == 0
WATCHED = ("hub", "proxy", "keeper", *(["pam"] if IS_ROOT else []))


@pytest.fixture(scope="module")
def account() -> Iterator[Account | None]:
    if not IS_ROOT:
        yield None
        return
    with temporary_account("up") as made:
        yield made


@pytest.fixture(scope="module")
def carrel(account: Account | None) -> Iterator[Installation]:
    """An installation with one running notebook server."""
    with Installation(user=account.name if account else None) as running:
        start_notebook(running)
        yield running


def start_notebook(carrel: Installation) -> None:
    headers = {"Authorization": f"token {carrel.new_token()}"}
    url = f"{carrel.url}hub/api/users/{carrel.user}/server"
    reply = httpx.post(url, headers=headers, timeout=60, trust_env=False)
    assert reply.status_code in (201, 202), reply.text
    carrel.wait_until_ready()


def press_button(client: httpx.Client, link: str) -> None:
    """Open a link and press its button, as a browser does."""
    page = client.get(link)
    assert page.status_code == 200
    field = re.search(r'name="_xsrf"\s+value="([^"]+)"', page.text)
    assert field is not None, page.text
    client.post(link, data={"_xsrf": field[1]}, headers={"Referer": link})


def test_the_link_signs_the_person_in(carrel: Installation) -> None:
    with httpx.Client(follow_redirects=True, timeout=60, trust_env=False) as client:
        press_button(client, carrel.new_link())
        home = client.get(f"{carrel.url}hub/home")
    assert home.status_code == 200
    assert str(home.url) == f"{carrel.url}hub/home"
    assert carrel.user in home.text


def test_no_link_and_no_key_is_in_the_log_or_on_a_command_line(carrel: Installation) -> None:
    secrets = [carrel.link.rsplit("/", 1)[1], *carrel.keys()]
    commands = command_lines().decode(errors="replace")
    for secret in secrets:
        assert secret not in carrel.log_text()
        assert secret not in commands


@pytest.mark.parametrize("service", [*WATCHED, "agent"])
def test_a_killed_service_comes_back_and_notebooks_run_on(
    carrel: Installation, service: str
) -> None:
    notebooks = carrel.server_pids()
    before = {name: carrel.pid_of(name) for name in ("up", *WATCHED) if name != service}
    killed = carrel.pid_of(service)
    carrel.kill(service)
    wait_until(
        lambda: carrel.find_pid(service) not in (None, killed), 60, lambda: f"{service} stays away"
    )
    carrel.wait_until_healthy()
    assert {name: carrel.pid_of(name) for name in before} == before
    assert [is_alive(pid) for pid in notebooks] == [True]
    carrel.wait_until_ready()


def test_a_new_up_takes_over_and_nobody_notices(carrel: Installation) -> None:
    names = ("agent", *WATCHED)
    before = {name: carrel.pid_of(name) for name in names}
    notebooks = carrel.server_pids()
    carrel.restart_up()
    assert {name: carrel.pid_of(name) for name in names} == before
    assert carrel.server_pids() == notebooks
    carrel.wait_until_ready()


def test_a_second_up_is_refused(carrel: Installation) -> None:
    second = carrel.run_cli("up")
    assert second.returncode == 1
    assert f"process {carrel.up_pid}, {carrel.url}" in second.stderr


def test_notebooks_outlive_sigterm_and_end_with_ctrl_c(carrel: Installation) -> None:
    notebooks = carrel.server_pids()
    carrel.send(signal.SIGTERM)
    assert carrel.wait_for_end() == 0
    assert f"Left running: the notebook server of {carrel.user}." in carrel.output()
    assert carrel.run_cli("status").returncode == 3
    assert [is_alive(pid) for pid in notebooks] == [True]

    carrel.start()
    carrel.wait_until_ready()
    assert carrel.server_pids() == notebooks
    assert carrel.stop() == 0
    assert f"Stopping the notebook server of {carrel.user}." in carrel.output()
    assert leftovers(carrel.base) == []
    assert [is_alive(pid) for pid in notebooks] == [False]


@pytest.mark.root
@pytest.mark.skipif(not IS_ROOT, reason="acting as another user needs root")
def test_as_an_ordinary_user_everything_is_that_users(account: Account) -> None:
    with Installation(run_as=account.name) as carrel:
        assert carrel.user == account.name
        assert carrel.find_pid("pam") is None
        uid = Path(f"/proc/{carrel.up_pid}").stat().st_uid
        assert uid >= 1000
        for name in ("hub", "proxy", "keeper", "agent"):
            assert Path(f"/proc/{carrel.pid_of(name)}").stat().st_uid == uid
        start_notebook(carrel)
        (notebook,) = carrel.server_pids()
        assert Path(f"/proc/{notebook}").stat().st_uid == uid
        assert carrel.stop() == 0
        assert leftovers(carrel.base) == []

"""JupyterHub's idle culler and a service with its library, unmodified, run by Carrel itself."""

import os
import pwd
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from clients import environment
from clients.carrel import Carrel, Visitor, carrel, wait_for
from clients.street import APPS

from support.accounts import temporary_account

pytestmark = [pytest.mark.clients, pytest.mark.timeout(300)]

SERVICES = """
[[hub.services]]
name = "culler"
command = ["{python}", "-m", "jupyterhub_idle_culler", "--timeout=5", "--cull-every=1"]
{user}
[[hub.services]]
name = "me"
command = ["{python}", "{program}"]
url = "http://127.0.0.1:{{service_port}}"
{user}
"""


@contextmanager
def service_account() -> Iterator[str]:
    """As root an account of the services' own; else they run as whoever runs all."""
    if os.geteuid() != 0:
        yield ""
        return
    with temporary_account("services") as made:
        yield made.name


@pytest.fixture(scope="module")
def account() -> Iterator[str]:
    with service_account() as name:
        yield name


@pytest.fixture(scope="module")
def hub(account: str) -> Iterator[Carrel]:
    python = environment.make()
    place = Path(tempfile.mkdtemp(prefix="cservice", dir="/tmp"))
    place.chmod(0o755)
    program = place / "hub_service.py"
    shutil.copyfile(APPS / "hub_service.py", program)
    program.chmod(0o644)
    user = f'user = "{account}"' if account else ""
    try:
        with carrel(SERVICES.format(python=python, program=program, user=user)) as hub:
            yield hub
    finally:
        shutil.rmtree(place)


def pid_of(hub: Carrel, service: str) -> int:
    """Return the process of a service that is ready; 0 before that."""
    pid: int = hub.api.get(f"services/{service}").json()["pid"]
    return pid


def log_of(hub: Carrel, service: str) -> str:
    return "\n".join(hub.api.get(f"services/{service}/log").json()["lines"])


def test_the_real_idle_culler_stops_what_is_idle(hub: Carrel) -> None:
    wait_for(lambda: pid_of(hub, "culler"), lambda: log_of(hub, "culler"))
    hub.spawn("eve")
    wait_for(lambda: hub.servers("eve") == {}, lambda: log_of(hub, "culler"))


def test_a_service_with_jupyterhubs_library_signs_people_in(hub: Carrel) -> None:
    wait_for(lambda: pid_of(hub, "me"), lambda: log_of(hub, "me"))
    with Visitor(hub) as alice:
        asked = alice.sign_in("alice", "/services/me/")
        assert "the service me" in asked.text, "alice is asked first"
        me = alice.post(asked.url, data={"_xsrf": alice.cookie("_xsrf", "hub/")})
        assert me.json()["user"] == "alice", log_of(hub, "me")


def test_a_service_is_its_accounts_with_its_token_out_of_sight(hub: Carrel, account: str) -> None:
    wait_for(lambda: pid_of(hub, "me"), lambda: log_of(hub, "me"))
    process = Path(f"/proc/{pid_of(hub, 'me')}")
    uid = process.stat().st_uid
    assert uid != 0
    if account:
        assert uid == pwd.getpwnam(account).pw_uid
    variables = dict(
        line.split("=", 1) for line in (process / "environ").read_text().split("\0") if "=" in line
    )
    token = variables["JUPYTERHUB_API_TOKEN"]
    assert token not in (process / "cmdline").read_text()
    assert not any(name.startswith("CARREL_HUB") for name in variables)
    assert hub.api.get("user", headers={"Authorization": f"token {token}"}).json()["name"] == "me"


def test_a_service_that_dies_comes_back(hub: Carrel) -> None:
    wait_for(lambda: pid_of(hub, "me"), lambda: log_of(hub, "me"))
    killed = pid_of(hub, "me")
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: pid_of(hub, "me") not in (0, killed), lambda: log_of(hub, "me"))
    events = hub.api.get("events?subject=service:me").json()["events"]
    assert [event["kind"] for event in events[:3]] == [
        "service.ready",
        "service.starting",
        "service.ended",
    ]

"""A host whose services a real systemd runs: `join --systemd` and `leave`, and what is between."""

import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import carrel_agent
import carrel_shared
from support.accounts import Account
from support.booted_systemd import Booted, booted_systemd
from support.fleet import FLEET_PORT, Fleet, Host, fleet, wait_for, wired

UNITS = ("carrel-agent.service", "carrel-relay.service")
NEXT = "/opt/carrel-next"
UPGRADE = f"""
site={NEXT}/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages
mkdir -p {NEXT}/bin $site
cp {sys.prefix}/pyvenv.cfg {NEXT}/
ln -s {Path(sys.executable).resolve()} {NEXT}/bin/python
cp -r {Path(carrel_agent.__file__).parent} {Path(carrel_shared.__file__).parent} $site/
echo '__version__ = "99.1"' >>$site/carrel_agent/__init__.py
echo {sysconfig.get_path("purelib")} >$site/next.pth
sed -i 's|^ExecStart=[^ ]*|ExecStart={NEXT}/bin/python|' /etc/systemd/system/{UNITS[0]}
systemctl daemon-reload
systemctl restart {UNITS[0]}
"""
"""Puts another version beside the one that runs, in its own environment, and goes over to it."""

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(600),  # a dozen programs begin, however busy the machine is
    pytest.mark.skipif(
        os.geteuid() != 0
        or not Path("/lib/systemd/systemd").exists()
        or any(shutil.which(one) is None for one in ("ip", "nsenter", "unshare", "dbus-daemon")),
        reason="needs root and the packages systemd, dbus, iproute2 and util-linux",
    ),
]


@dataclass
class Machine:
    """A machine that systemd runs, on a cable to the hub."""

    fleet: Fleet
    host: Host
    systemd: Booted

    def carrel_agent(self, *words: str, stdin: str = "") -> str:
        """Run `carrel-agent` as its root would; return what it said."""
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
        command = (sys.executable, "-I", "-m", "carrel_agent")
        done = self.systemd.run(*command, *words, env=environment, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stderr

    def systemctl(self, *words: str) -> str:
        return self.systemd.run("/usr/bin/systemctl", *words).stdout

    def shown(self, unit: str, name: str) -> str:
        return self.systemctl("show", "--value", "--property", name, unit).strip()

    @property
    def state(self) -> str:
        return str(self.fleet.shown(self.host.name).get("state"))


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with fleet(hosts=0, people=1) as made:
        host = Host("rack-1", 1, made)
        with wired(host) as network, booted_systemd(network) as systemd:
            machine = Machine(made, host, systemd)
            joined = machine.carrel_agent(
                *("join", f"https://{host.hub_address}:{FLEET_PORT}", "--systemd"),
                *("--address", host.address, "--account", made.relay_account.name),
                stdin=made.join_token(host.name),
            )
            assert "carrel-agent and carrel-relay are running" in joined
            yield machine


@pytest.fixture(scope="module")
def lab(machine: Machine) -> tuple[Account, str]:
    """Somebody with a JupyterLab there, and a kernel that remembers something."""
    [person] = machine.fleet.people
    machine.fleet.console("link", {"user": person.name, "account": person.name})
    wait_for("the host to be ready", lambda: machine.state == "ready")
    path = f"/users/{person.name}/server"
    status, reply = machine.fleet.api("POST", path, {"profile": "lab"})
    assert status in (201, 202), reply
    wait_for("JupyterLab", lambda: machine.fleet.server(person).get("state") == "ready")
    kernels = f"/user/{person.name}/api/kernels"
    status, kernel = machine.fleet.public("POST", kernels, {"name": "python3"})
    assert status == 201, kernel
    with machine.fleet.channels(person, kernel["id"]) as channels:
        assert channels.run("remembered = 41; print(remembered)") == "41\n"
    return person, kernel["id"]


def test_both_services_run_hardened_and_come_back_at_boot(machine: Machine) -> None:
    agent, relay = UNITS
    for unit in UNITS:
        assert machine.shown(unit, "ActiveState") == "active"
        assert machine.shown(unit, "UnitFileState") == "enabled"
        assert machine.shown(unit, "NRestarts") == "0"
    pid = machine.shown(relay, "MainPID")
    status = machine.systemd.run("/bin/cat", f"/proc/{pid}/status").stdout
    assert "CapEff:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    checked = machine.systemd.run("/usr/bin/systemd-analyze", "verify", *UNITS)
    assert "carrel-" not in checked.stderr
    assert machine.shown(agent, "Delegate") == "yes"


def test_kernels_outlive_both_services(machine: Machine, lab: tuple[Account, str]) -> None:
    person, kernel = lab
    before = machine.shown(UNITS[0], "MainPID")
    machine.systemctl("restart", *UNITS)
    wait_for("both", lambda: {machine.shown(unit, "ActiveState") for unit in UNITS} == {"active"})
    assert machine.shown(UNITS[0], "MainPID") != before
    machine.systemctl("kill", "--kill-whom=main", "--signal=KILL", UNITS[0])
    wait_for("the next", lambda: machine.shown(UNITS[0], "NRestarts") == "1")
    status = f"/user/{person.name}/api/status"
    wait_for("the way to it", lambda: machine.fleet.public("GET", status)[0] == 200)
    with machine.fleet.channels(person, kernel) as channels:
        assert channels.run("print(remembered + 1)") == "42\n"
    wait_for("the host to be ready", lambda: machine.state == "ready")
    assert machine.fleet.server(person)["state"] == "ready"
    path = f"/users/{person.name}/server/usage"
    wait_for("the way to its agent", lambda: machine.fleet.api("GET", path)[0] == 200)
    _, usage = machine.fleet.api("GET", path)
    assert (usage["limits"]["memory"], usage["unenforced"]) == (2 << 30, [])


def test_an_agent_of_another_version_takes_over_under_a_running_kernel(
    machine: Machine, lab: tuple[Account, str]
) -> None:
    person, kernel = lab
    done = machine.systemd.run("/bin/sh", "-euc", UPGRADE, env={"PATH": "/usr/bin:/bin"})
    assert done.returncode == 0, done.stderr
    host = machine.host.name
    wait_for("the next version", lambda: machine.fleet.shown(host).get("version") == "99.1")
    main = machine.shown(UNITS[0], "MainPID")
    assert "/opt/carrel-next/" in machine.systemd.run("/bin/cat", f"/proc/{main}/cmdline").stdout
    with machine.fleet.channels(person, kernel) as channels:
        assert channels.run("print(remembered + 2)") == "43\n"
    assert machine.fleet.server(person)["state"] == "ready"


def test_leaving_takes_the_services_away(machine: Machine, lab: tuple[Account, str]) -> None:
    person, _ = lab
    assert machine.fleet.api("POST", f"/hosts/{machine.host.name}/evacuate")[0] == 202
    wait_for("its server to end", lambda: not machine.fleet.server(person))
    machine.carrel_agent("leave")
    assert machine.state == "gone"
    for unit in UNITS:
        assert machine.shown(unit, "LoadState") == "not-found"
        assert machine.shown(unit, "ActiveState") == "inactive"
    left = machine.systemd.run("/bin/sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").stdout
    assert "carrel_agent" not in left
    assert "carrel_proxy" not in left
    assert machine.systemd.run("/bin/ls", "/etc/carrel").stdout == ""

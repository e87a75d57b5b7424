"""PAM sessions of servers: opened before, closed after, whatever becomes of the agent."""

import os
import pwd
import secrets
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.agent_host import AgentHost, has_ended, running_host, wait_for

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="PAM sessions are opened by root"),
    pytest.mark.skipif(not Path("/etc/pam.d").is_dir(), reason="PAM is not there"),
]


@dataclass
class Service:
    """A PAM service that writes down when sessions are opened and closed."""

    name: str
    log: Path

    def said(self) -> list[str]:
        return self.log.read_text().split() if self.log.exists() else []


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    place = tmp_path_factory.mktemp("pam")
    made = Service(f"carrel-test-{secrets.token_hex(3)}", place / "log")
    script = place / "note"
    script.write_text(f'#!/bin/sh\necho "$PAM_TYPE:$PAM_USER" >> {made.log}\n')
    script.chmod(0o755)
    (place / "environment").write_text("COURSE=physics\nHOME=/nowhere\n")
    (place / "limits").write_text("* - nofile 321\n")
    rules = Path("/etc/pam.d") / made.name
    rules.write_text(
        "account required pam_permit.so\n"
        "auth required pam_permit.so\n"
        f"session required pam_exec.so {script}\n"
        f"session required pam_env.so conffile=/dev/null envfile={place}/environment\n"
        f"session required pam_limits.so conf={place}/limits\n"
        "session optional pam_umask.so umask=0027\n"
    )
    yield made
    rules.unlink()


@pytest.fixture(scope="module")
def host(account: pwd.struct_passwd, service: Service) -> Iterator[AgentHost]:
    with running_host(account, pam_service=service.name) as running:
        yield running


def test_a_session_is_open_as_long_as_its_server_runs(host: AgentHost, service: Service) -> None:
    name = host.account.pw_name
    before = service.said()
    report = host.started("good")
    assert service.said()[len(before) :] == [f"open_session:{name}"]
    environment = Path(f"/proc/{report['pid']}/environ").read_bytes().split(b"\0")
    assert b"COURSE=physics" in environment
    assert f"HOME={host.account.pw_dir}".encode() in environment
    limits = Path(f"/proc/{report['pid']}/limits").read_text()
    assert "Max open files            321                  321" in limits
    status = Path(f"/proc/{report['pid']}/status").read_text()
    assert "Umask:\t0027" in status
    host.stop_server(report["server_id"])
    host.wait_state(report["server_id"], "stopped")
    closed = [f"open_session:{name}", f"close_session:{name}"]
    wait_for("the end of the session", lambda: service.said()[len(before) :] == closed)


def test_it_is_closed_while_no_agent_is_there(host: AgentHost, service: Service) -> None:
    before = len(service.said())
    report = host.started("good")
    agent = host.agent_pid
    os.kill(agent, signal.SIGSTOP)
    os.kill(report["pid"], signal.SIGTERM)
    wait_for("the server's end", lambda: has_ended(report["pid"]))
    wait_for("the end of the session", lambda: len(service.said()) == before + 2)
    os.kill(agent, signal.SIGKILL)
    wait_for("the agent's end", lambda: has_ended(agent))
    host.wait_healthy()
    host.wait_state(report["server_id"], "failed")


def test_a_start_that_comes_to_nothing_leaves_no_session(host: AgentHost, service: Service) -> None:
    before = len(service.said())
    spec = host.spec(command=["/nowhere/at-all"])
    host.put(spec)
    host.wait_state(spec["server_id"], "failed")
    wait_for("the end of the session", lambda: len(service.said()) == before + 2)


def test_a_session_may_make_the_home(account: pwd.struct_passwd, service: Service) -> None:
    """As pam_mkhomedir does, or what mounts homes from elsewhere."""
    home = Path(account.pw_dir)
    rules = Path("/etc/pam.d") / f"{service.name}-homes"
    makes = f"/usr/bin/install -d -o {account.pw_uid} -g {account.pw_gid} -m 0700 {home}"
    rules.write_text(
        f"account required pam_permit.so\nsession required pam_exec.so quiet {makes}\n"
    )
    away = home.rename(home.with_name(f"{home.name}.away"))
    try:
        with running_host(account, pam_service=rules.name) as host:
            report = host.started("good")
            assert Path(f"/proc/{report['pid']}/cwd").readlink() == home
            host.stop_server(report["server_id"])
            host.wait_state(report["server_id"], "stopped")
    finally:
        rules.unlink()
        shutil.rmtree(home, ignore_errors=True)
        away.rename(home)


def test_a_module_that_crashes_costs_the_start_alone(
    account: pwd.struct_passwd, service: Service
) -> None:
    """FLT-K4: the holder is a process of its own, so that its end is nobody else's."""
    rules = Path("/etc/pam.d") / f"{service.name}-crash"
    crash = service.log.parent / "crash"
    crash.write_text("#!/bin/sh\nkill -SEGV $PPID\n")
    crash.chmod(0o755)
    rules.write_text(
        f"account required pam_permit.so\nsession required pam_exec.so quiet {crash}\n"
    )
    try:
        with running_host(account, pam_service=rules.name) as host:
            agent = host.agent_pid
            spec = host.spec("good")
            host.put(spec)
            exit_ = host.wait_state(spec["server_id"], "failed")["exit"]
            rules.write_text("account required pam_permit.so\nsession required pam_permit.so\n")
            report = host.started("good")
            assert host.agent_pid == agent
            host.stop_server(report["server_id"])
            host.wait_state(report["server_id"], "stopped")
    finally:
        rules.unlink()
    assert exit_["cause"] == "start_failed"
    assert "its holder ended" in exit_["summary"]


def test_an_account_that_pam_refuses_starts_nothing(
    account: pwd.struct_passwd, service: Service
) -> None:
    rules = Path("/etc/pam.d") / f"{service.name}-closed"
    rules.write_text("account required pam_deny.so\nsession required pam_permit.so\n")
    try:
        with running_host(account, pam_service=rules.name) as host:
            spec = host.spec("good")
            host.put(spec)
            exit_ = host.wait_state(spec["server_id"], "failed")["exit"]
    finally:
        rules.unlink()
    assert exit_["cause"] == "start_failed"
    assert "PAM opens no session for" in exit_["summary"]
    assert "pam_acct_mgmt" in exit_["summary"]


def test_more_variables_than_can_be_passed_on_fail_the_start(account: pwd.struct_passwd) -> None:
    """Some modules take them from a file of the user's own, which breaks that start alone."""
    own = Path(account.pw_dir) / ".pam_environment"
    rules = Path("/etc/pam.d") / f"carrel-test-{secrets.token_hex(3)}"
    rules.write_text(
        "account required pam_permit.so\n"
        "session required pam_env.so conffile=/dev/null user_readenv=1\n"
    )
    try:
        own.write_text("".join(f"V{n}={'x' * 900}\n" for n in range(100)))
        os.chown(own, account.pw_uid, account.pw_gid)
        with running_host(account, pam_service=rules.name) as host:
            spec = host.spec("good")
            host.put(spec)
            exit_ = host.wait_state(spec["server_id"], "failed")["exit"]
            assert "its variables need more than" in exit_["summary"]
            own.unlink()
            host.put({**spec, "generation": 2})
            host.wait_state(spec["server_id"], "ready")
    finally:
        own.unlink(missing_ok=True)
        rules.unlink()

"""carrel-pam with the host's own PAM and accounts of the tests'."""

import json
import os
import pwd
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from carrel_agent.pam.attempt import judge
from carrel_agent.pam.protocol import REASONS, InvalidAttemptError, parse_attempt
from support.accounts import Account, temporary_account
from support.agent_host import child_named, has_ended, wait_for

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="accounts and passwords need root")


class Pam:
    """A running carrel-pam."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.path = directory / "pam.sock"
        self.log = directory / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-m", "carrel_agent.pam", "--socket", str(self.path),
                 *options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        wait_for("carrel-pam", lambda: "pam_ready" in self.log.read_text())

    def send(self, line: bytes) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(60)
            connection.connect(str(self.path))
            connection.sendall(line + b"\n")
            answer = connection.makefile("rb").readline()
        found: dict[str, Any] = json.loads(answer) if answer else {}
        return found

    def check(self, user: str, password: str) -> dict[str, Any]:
        return self.send(json.dumps({"user": user, "password": password}).encode())


@contextmanager
def running(*options: str) -> Iterator[Pam]:
    with tempfile.TemporaryDirectory(prefix="cp", dir="/tmp") as directory:
        Path(directory).chmod(0o755)
        pam = Pam(Path(directory), *options)
        try:
            yield pam
        finally:
            pam.process.send_signal(signal.SIGTERM)
            assert pam.process.wait(60) == 0


@pytest.fixture(scope="module")
def pam() -> Iterator[Pam]:
    with running("--uid", str(os.getuid())) as running_pam:
        yield running_pam


@pytest.fixture(scope="module")
def people() -> Iterator[dict[str, Account]]:
    with (
        temporary_account("p1") as good,
        temporary_account("p2") as locked,
        temporary_account("p3") as expired,
    ):
        subprocess.run(["usermod", "-L", locked.name], check=True)
        subprocess.run(["usermod", "-e", "1", expired.name], check=True)
        yield {"good": good, "locked": locked, "expired": expired}


@needs_root
def test_passwords_are_judged_as_the_host_judges_them(pam: Pam, people: dict[str, Account]) -> None:
    good, locked, expired = people["good"], people["locked"], people["expired"]
    attempts = {
        "right": (good.name, good.password),
        "wrong": (good.name, "not it"),
        "locked": (locked.name, locked.password),
        "expired": (expired.name, expired.password),
        "unknown": ("carrel-t-nobody", "whatever"),
        "root": ("root", "whatever"),
        "spelled": (good.name.upper(), good.password),
    }
    with ThreadPoolExecutor(8) as pool:  # a refusal takes PAM seconds, on purpose
        answers = {name: pool.submit(pam.check, *pair) for name, pair in attempts.items()}
    found = {name: answer.result() for name, answer in answers.items()}
    assert found["right"] == {"ok": True, "account": good.name, "reason": ""}
    assert {n: a["reason"] for n, a in found.items() if n != "right"} == {
        "wrong": "wrong",
        "locked": "wrong",
        "expired": "denied",
        "unknown": "wrong",
        "root": "denied",
        "spelled": "wrong",
    }
    assert not any(a["ok"] or a["account"] for n, a in found.items() if n != "right")
    text = pam.log.read_text()
    assert good.password not in text
    assert "not it" not in text
    assert "carrel-t-nobody" not in text, "somebody may type a password for the name"


@needs_root
def test_only_the_hubs_account_may_ask(people: dict[str, Account]) -> None:
    hub, other = (pwd.getpwnam(people[name].name) for name in ("good", "locked"))
    ask = (
        "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        's.sendall(b"{}\\n"); print(s.recv(100))'
    )
    with running("--uid", str(hub.pw_uid)) as pam:
        assert pam.path.stat().st_mode & 0o777 == 0o660

        def as_user(uid: int, gid: int) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                ["/usr/bin/python3", "-I", "-c", ask, str(pam.path)],
                user=uid, group=gid, extra_groups=[], capture_output=True, text=True, check=False,
            )  # fmt: skip

        assert "invalid" in as_user(hub.pw_uid, hub.pw_gid).stdout
        assert "PermissionError" in as_user(other.pw_uid, other.pw_gid).stderr
        sneaky = as_user(other.pw_uid, hub.pw_gid)
        assert "invalid" not in sneaky.stdout
        assert "peer_refused" in pam.log.read_text()


@contextmanager
def pam_service(text: str) -> Iterator[str]:
    """Configure a PAM service of the test's own."""
    name = f"carrel-t-{secrets.token_hex(3)}"
    path = Path("/etc/pam.d") / name
    path.write_text(text)
    try:
        yield name
    finally:
        path.unlink()


@needs_root
def test_a_module_that_hangs_is_killed_with_its_helpers(people: dict[str, Account]) -> None:
    good = people["good"]
    with (
        pam_service(
            "auth required pam_exec.so /bin/sleep 1000\naccount required pam_permit.so\n"
        ) as service,
        running("--uid", "0", "--service", service, "--seconds", "1", "--attempts", "2") as pam,
        ThreadPoolExecutor(3) as pool,
    ):
        answers = [pool.submit(pam.check, good.name, good.password) for _ in range(3)]
        child = wait_for("a child", lambda: child_named(pam.process.pid, "pam.attempt"))
        helper = wait_for("its helper", lambda: child_named(child, "sleep"))
        reasons = sorted(answer.result()["reason"] for answer in answers)
        assert reasons == ["busy", "timeout", "timeout"]
        wait_for("their end", lambda: has_ended(child) and has_ended(helper))


@needs_root
def test_a_module_that_prints_or_crashes_cannot_forge_an_answer(people: dict[str, Account]) -> None:
    good = people["good"]
    forged = json.dumps({"ok": True, "account": "root", "reason": ""}).replace(" ", "")
    deny = f"auth required pam_exec.so stdout /bin/echo {forged}\nauth required pam_deny.so\n"
    with pam_service(deny) as service, running("--uid", "0", "--service", service) as pam:
        assert pam.check(good.name, good.password)["ok"] is False
    missing = "auth required /nowhere/pam_at_all.so\naccount required pam_permit.so\n"
    with pam_service(missing) as service, running("--uid", "0", "--service", service) as pam:
        assert pam.check(good.name, good.password)["reason"] == "unavailable"


@needs_root
def test_a_password_that_must_be_changed_first_says_so(people: dict[str, Account]) -> None:
    with temporary_account("p4") as account, running("--uid", "0") as pam:
        subprocess.run(["chage", "-d", "0", account.name], check=True)
        assert pam.check(account.name, account.password)["reason"] == "password_expired"


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"{}",
        b'{"user":"a"}',
        b'{"user":"a","password":""}',
        b'{"user":"","password":"x"}',
        b'{"user":1,"password":"x"}',
        b'{"user":"a\\u0000b","password":"x"}',
        b'{"user":"a\\nb","password":"x"}',
        b'{"user":"a","password":"x\\u0000"}',
        b'{"user":"a","password":"\\ud800"}',
        b'{"user":"a","password":"x","service":"su"}',
        b'{"user":"' + b"a" * 300 + b'","password":"x"}',
        b'{"user":"a","password":"' + b"x" * 2000 + b'"}',
        b"\xff\xfe",
    ],
)
def test_malformed_requests_never_reach_pam(pam: Pam, line: bytes) -> None:
    with pytest.raises(InvalidAttemptError):
        parse_attempt(line)
    assert pam.send(line) == {"ok": False, "account": "", "reason": "invalid"}


def test_a_line_without_end_is_cut_off(pam: Pam) -> None:
    assert pam.send(b"x" * 100_000) == {}


def test_every_reason_has_words() -> None:
    outcomes = {
        judge(code, password_was_right=right).reason
        for code in range(1, 32)
        for right in (False, True)
    }
    assert outcomes <= set(REASONS)
    wrong = {judge(code, password_was_right=False) for code in (7, 10, 11)}
    assert len(wrong) == 1, "a name that exists is not told from one that does not"


def test_a_service_name_that_is_a_path_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-m", "carrel_agent.pam", "--socket", "/tmp/x", "--uid", "0",
         "--service", "../../tmp/x"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 78
    assert "Traceback" not in done.stderr

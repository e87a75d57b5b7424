"""The fork server itself: what it knows, what it answers, how it ends."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from carrel_agent.process.drop import ExitCode
from carrel_agent.process.launch_spec import write_launch_spec
from carrel_agent.zygote.freshness import STALE
from support.launching import Launcher, build_spec, launcher
from support.processes import open_files


def memory_holds(pid: int, needle: bytes) -> bool:
    """Whether a process's readable memory contains these bytes."""
    maps = Path(f"/proc/{pid}/maps").read_text(encoding="ascii").splitlines()
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in maps:
            span, mode, *rest = line.split()
            if "r" not in mode or rest[-1] in ("[vvar]", "[vsyscall]", "[vvar_vclock]"):
                continue
            start, end = (int(part, 16) for part in span.split("-"))
            memory.seek(start)
            try:
                found = needle in memory.read(end - start)
            except OSError:
                continue
            if found:
                return True
    return False


def test_it_has_one_thread_and_an_empty_environment(zygote: Launcher) -> None:
    # Answering shows that it is through with its imports.
    assert "error" in zygote.ask_zygote({"op": "ping", "id": 1}, [])
    process = Path(f"/proc/{zygote.zygote_pid}")
    assert len(list((process / "task").iterdir())) == 1
    names = {line.partition(b"=")[0] for line in (process / "environ").read_bytes().split(b"\0")}
    assert names - {b""} <= {b"PATH", b"LANG", b"CARREL_ZYGOTE_FD", b"LC_CTYPE"}
    assert (process / "cmdline").read_bytes().startswith(b"carrel-zygote\0")
    targets = set(open_files(zygote.zygote_pid).values())
    assert not any("eventpoll" in target for target in targets)
    assert sum(target.startswith("socket:") for target in targets) == 1


def test_a_server_shares_no_secret_with_zygote_or_sibling(
    zygote: Launcher, account: pwd.struct_passwd
) -> None:
    one, other = zygote.fork(build_spec(account)), zygote.fork(build_spec(account))
    for server in (one, other):
        server.wait_until_ready()
    secret = one.spec.secret.encode()
    if os.geteuid() == 0:
        assert memory_holds(one.pid, secret)
        assert not memory_holds(zygote.zygote_pid, secret)
        assert not memory_holds(other.pid, secret)
    for pid in (one.pid, other.pid, zygote.zygote_pid):
        for name in ("environ", "cmdline"):
            assert secret not in Path(f"/proc/{pid}/{name}").read_bytes()
    for server in (one, other):
        server.stop()


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        ({"op": "fork", "id": 7}, "fork needs 3 descriptors"),
        ({"op": "dance", "id": 7}, "op 'dance' is not known here"),
        ("fork", "a request is a JSON object"),
    ],
)
def test_a_request_it_cannot_serve_is_answered(
    zygote: Launcher, message: object, complaint: str
) -> None:
    reply = zygote.ask_zygote(message, [])
    assert complaint in reply["error"]
    assert reply["id"] == (7 if isinstance(message, dict) else None)


def test_a_request_with_the_wrong_descriptors_leaks_none(
    zygote: Launcher, account: pwd.struct_passwd
) -> None:
    places = Path(f"/proc/{zygote.zygote_pid}/fd")
    before = len(list(places.iterdir()))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for count in (1, 2, 5):
            reply = zygote.ask_zygote({"op": "fork", "id": 1}, [ours.fileno()] * count)
            assert "descriptors" in reply["error"]
    assert len(list(places.iterdir())) == before


def test_a_spec_that_must_not_be_used_ends_in_the_servers_log(
    zygote: Launcher, account: pwd.struct_passwd
) -> None:
    spec = build_spec(account)
    object.__setattr__(spec, "uid", 0)
    server = zygote.fork(spec)
    assert server.wait() == ExitCode.SPEC
    assert "uid: 0 is root" in server.log_text()
    assert "Traceback" not in server.log_text()


def test_servers_outlive_the_zygote(account: pwd.struct_passwd) -> None:
    with launcher() as own:
        own.start_zygote()
        server = own.fork(build_spec(account))
        server.wait_until_ready()
        os.kill(own.zygote_pid, signal.SIGKILL)
        assert own.end_zygote() == -signal.SIGKILL
        assert server.visit("GET", "api/me")[0].status == 200
        # Who was there all the time still learns how it ended.
        assert server.stop() == 0


def test_it_ends_when_nobody_holds_its_socket(account: pwd.struct_passwd) -> None:
    with launcher() as own:
        own.start_zygote()
        server = own.fork(build_spec(account))
        assert own.end_zygote() == 0
        server.wait_until_ready()
        server.stop()


def test_a_server_whose_zygote_died_before_it_was_reported_never_starts() -> None:
    """The gate: nobody would ever know of it."""
    from carrel_agent.zygote import serving

    gate, key = os.pipe()
    report, report_end = os.pipe()
    middle = os.fork()
    if middle == 0:
        os.close(report)
        serving._fork_again(serving.ForkRequest(-1, -1, -1), gate, key, report_end)
    for descriptor in (gate, report_end):
        os.close(descriptor)
    os.waitpid(middle, 0)
    os.close(key)
    # Its copies of the pipe are closed when it has ended.
    assert len(os.read(report, 64)) == 4
    assert os.read(report, 64) == b""
    os.close(report)


def test_without_a_socket_it_says_what_is_missing() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-m", "carrel_agent.zygote"],
        env={}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 64
    assert done.stderr == "zygote: CARREL_ZYGOTE_FD must hold the number of a socket\n"


def test_a_spec_is_closed_in_the_zygote(zygote: Launcher, account: pwd.struct_passwd) -> None:
    server = zygote.fork(build_spec(account))
    targets = open_files(zygote.zygote_pid).values()
    assert not any("carrel-launch" in target for target in targets)
    server.wait_until_ready()
    server.stop()
    os.close(write_launch_spec(server.spec))


def test_without_root_it_forks_its_own_accounts_servers(account: pwd.struct_passwd) -> None:
    """Beside it: what it finds in its environment is not kept for its children."""
    wrapper: tuple[str, ...] = ()
    if os.geteuid() == 0:
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            pytest.skip("setpriv is not installed")
        wrapper = (setpriv, f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}",
                   "--clear-groups")  # fmt: skip
    with launcher() as own:
        own.start_zygote(*wrapper, environment={"CARREL_CANARY": "secret-of-the-agent"})
        server = own.fork(build_spec(account))
        server.wait_until_ready()
        assert server.visit("GET", "api/me")[0].status == 200
        assert Path(f"/proc/{server.pid}").stat().st_uid == account.pw_uid
        assert "CARREL_CANARY" not in Path(f"/proc/{own.zygote_pid}/environ").read_text()
        stranger = build_spec(account)
        object.__setattr__(stranger, "uid", account.pw_uid + 1)
        refused = own.fork(stranger)
        assert refused.wait() == ExitCode.SPEC
        assert f"runs as uid {account.pw_uid}" in refused.log_text()


def test_a_module_that_starts_a_thread_is_found_out() -> None:
    """With threads nothing may be forked: such a module is left to the servers."""
    script = """
import sys, threading, types
from carrel_agent.zygote import preload
rogue = types.ModuleType("rogue")
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "rogue":
            import importlib.machinery
            return importlib.machinery.ModuleSpec(name, self)
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
sys.meta_path.insert(0, Finder())
print(preload._import_all(["json", "rogue", "csv"], frozenset()))
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", script], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "frozenset({'rogue'})", done.stderr


def test_it_forks_nothing_of_packages_that_have_changed(
    account: pwd.struct_passwd, tmp_path: Path
) -> None:
    """An installer adds and removes entries of the directory that packages are in.

    It is one of this zygote's own: other tests' would notice as well.
    """
    venv.create(tmp_path, symlinks=True)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(tmp_path)}))
    packages = sysconfig.get_path("purelib")
    (site / "of_the_tests.pth").write_text(f"import site; site.addsitedir({packages!r})\n")
    with launcher() as one:
        one.start_zygote(python=str(tmp_path / "bin/python"))
        one.fork(build_spec(account)).stop(signal.SIGKILL)
        (site / "carrel_test-1.0.dist-info").mkdir()
        _, listener = one.prepare(build_spec(account, server_id="0123456789ff"))
        with listener:
            null = os.open("/dev/null", os.O_RDWR)
            reply = one.ask_zygote({"op": "fork", "id": 9}, [null, listener.fileno(), null])
            os.close(null)
        assert reply == {"id": 9, "error": STALE}


def test_it_imports_what_the_settings_name(account: pwd.struct_passwd) -> None:
    with launcher() as one:
        one.start_zygote(environment={"CARREL_ZYGOTE_PRELOAD": "wave,no_such_module"})
        server = one.fork(build_spec(account))
        server.wait_until_ready()
        server.stop()
        maps = Path(f"/proc/{one.zygote_pid}/environ").read_text()
        assert "CARREL_ZYGOTE_PRELOAD=wave,no_such_module" in maps
        assert memory_holds(one.zygote_pid, b"WAVE_FORMAT_PCM")

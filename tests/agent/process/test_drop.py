"""Becoming the user: what a new process is, and that it is not started when a step fails."""

import grp
import json
import os
import pwd
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from carrel_agent.process.drop import ExitCode
from carrel_agent.process.launch_spec import LaunchSpec
from support.launching import SOURCE, Launcher, build_spec

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
PROBE = """
import json, os, resource, signal, socket, sys
lines = (line.partition(":") for line in open("/proc/self/status"))
status = {name: value.strip() for name, _, value in lines}
mask = os.umask(0)
listener = socket.socket(fileno=3)
listener.listen()
listed = os.listdir("/proc/self/fd")
print(json.dumps({
    "uids": os.getresuid(), "gids": os.getresgid(), "groups": sorted(os.getgroups()),
    "umask": mask, "cwd": os.getcwd(), "environment": dict(os.environ),
    "fds": sorted(int(fd) for fd in listed if os.path.exists(f"/proc/self/fd/{fd}")),
    "stdin": os.readlink("/proc/self/fd/0"), "session": os.getsid(0) == os.getpid(),
    "core": resource.getrlimit(resource.RLIMIT_CORE),
    "nofile": resource.getrlimit(resource.RLIMIT_NOFILE),
    "status": {name: status[name] for name in status if name[:3] in ("Cap", "Sig", "Shd")},
    "oom": int(open("/proc/self/oom_score_adj").read()),
    "peer": int.from_bytes(listener.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[4:8],
                           sys.byteorder),
}))
"""


def probe(started: Launcher, spec: LaunchSpec, *wrapper: str) -> dict[str, Any]:
    """Start a process that describes itself, and return what it said."""
    server = started.execute(
        replace(spec, argv=(os.path.realpath(sys.executable), "-I", "-c", PROBE)), *wrapper
    )
    assert server.wait() == 0, server.log_text()
    said: dict[str, Any] = json.loads(server.log_text().splitlines()[-1])
    return said


@pytest.fixture
def spec(account: pwd.struct_passwd) -> LaunchSpec:
    return build_spec(account)


@as_root
def test_the_process_is_the_user_and_nobody_else(started: Launcher, spec: LaunchSpec) -> None:
    extra = grp.getgrnam("games").gr_gid
    said = probe(started, replace(spec, groups=(*spec.groups, extra)))
    assert said["uids"] == [spec.uid] * 3
    assert said["gids"] == [spec.gid] * 3
    assert said["groups"] == sorted({*spec.groups, extra})
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(said["status"][name], 16) == 0, name


def test_the_process_starts_from_nothing_of_its_parents(
    started: Launcher, spec: LaunchSpec
) -> None:
    said = probe(started, spec)
    environment = said["environment"]
    for name in ("CARREL_SERVER", "JUPYTER_CONFIG_PATH"):
        environment.pop(name)
    environment.pop("LC_CTYPE", None)  # set by Python itself in the locale C
    assert environment == spec.environment
    assert said["fds"] == [0, 1, 2, 3]
    assert said["stdin"] == "/dev/null"
    assert said["session"] is True
    assert said["cwd"] == spec.home
    assert said["umask"] == spec.umask


def test_signals_are_as_a_program_expects_them(started: Launcher, spec: LaunchSpec) -> None:
    shell = replace(
        spec, argv=("/bin/sh", "-c", "grep -E '^Sig(Blk|Ign)|^ShdPnd' /proc/self/status")
    )
    server = started.execute(shell)
    assert server.wait() == 0
    values = [int(line.split()[1], 16) for line in server.log_text().splitlines()]
    assert values
    # 32 and 33 are the C library's own: no program can set them, and none is touched by them.
    own = 1 << 31 | 1 << 32
    assert all(value & ~own == 0 for value in values), server.log_text()


def test_limits_are_set_and_no_core_is_written(started: Launcher, spec: LaunchSpec) -> None:
    said = probe(started, replace(spec, rlimits={"NOFILE": (64, 128)}, oom_score_adj=500))
    assert said["core"] == [0, 0]
    assert said["nofile"] == [64, 128]
    assert said["oom"] == 500


def test_who_listens_is_whom_a_proxy_sees(started: Launcher, spec: LaunchSpec) -> None:
    """The socket was bound by another account; the peer must be the one that listens."""
    assert probe(started, spec)["peer"] == spec.uid


def test_a_missing_home_is_said_and_survived(started: Launcher, spec: LaunchSpec) -> None:
    server = started.execute(replace(spec, home="/nonexistent/home", argv=("/bin/sh", "-c", "pwd")))
    assert server.wait() == 0
    warning, place = server.log_text().splitlines()
    assert "cannot enter /nonexistent/home" in warning
    assert place == "/"


def test_a_missing_program_is_named(started: Launcher, spec: LaunchSpec) -> None:
    server = started.execute(replace(spec, argv=("/opt/gone/bin/jupyter", "lab")))
    assert server.wait() == ExitCode.EXECUTE
    assert "cannot execute /opt/gone/bin/jupyter: No such file or directory" in server.log_text()


@as_root
def test_root_is_refused_even_by_name_of_another(started: Launcher, spec: LaunchSpec) -> None:
    """A spec with uid 0 cannot be made, so one is written by hand."""
    object.__setattr__(spec, "uid", 0)
    server = started.execute(spec)
    assert server.wait() == ExitCode.SPEC
    assert "root" in server.log_text()


@as_root
@pytest.mark.parametrize(
    ("call", "code", "words"),
    [
        ("setgroups", ExitCode.ACCOUNT, "cannot take the groups"),
        ("setresgid", ExitCode.ACCOUNT, "cannot take gid"),
        ("setresuid", ExitCode.ACCOUNT, "cannot take uid"),
        ("setsid", ExitCode.SESSION, "cannot start a session"),
        ("prlimit64", ExitCode.LIMITS, "cannot set the limit CORE"),
    ],
)
def test_a_step_that_fails_ends_the_start(
    started: Launcher, spec: LaunchSpec, call: str, code: ExitCode, words: str
) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    server = started.execute(
        replace(spec, argv=("/bin/sh", "-c", "echo STARTED; id")),
        *(strace, "-f", "-qq", "-o", "/dev/null", "-e", f"inject={call}:error=EPERM:when=1+"),
    )
    assert server.wait() == code, server.log_text()
    assert words in server.log_text()
    assert "STARTED" not in server.log_text()


@as_root
def test_root_opens_nothing_below_a_home(started: Launcher, spec: LaunchSpec) -> None:
    """AGT-03: whatever a user has put there is met by the user's own process, never by root."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    home = Path(spec.home)
    for name in (".jupyter", ".local"):
        (home / name).symlink_to("/etc")
    trace = started._directory / "trace"
    try:
        probe(
            started, spec, *(strace, "-f", "-qq", "-o", str(trace), "-e", "trace=%file,setresuid")
        )
    finally:
        for name in (".jupyter", ".local"):
            (home / name).unlink()
    calls = trace.read_text().splitlines()
    dropped = next(n for n, call in enumerate(calls) if "setresuid" in call)
    assert not [call for call in calls[:dropped] if spec.home in call]
    assert [call for call in calls[dropped:] if f'chdir("{spec.home}")' in call]


@as_root
def test_a_server_joins_its_groups_as_root_or_not_at_all(
    started: Launcher, spec: LaunchSpec, tmp_path: Path
) -> None:
    group = tmp_path / "group"
    group.mkdir()
    (group / "cgroup.procs").touch()
    server = started.execute(replace(spec, cgroups=(str(group),), argv=("/bin/echo", "STARTED")))
    assert server.wait() == 0
    assert (group / "cgroup.procs").read_text() == "0"
    (group / "tasks").touch()  # version 1, where joining by it waits for nobody
    (group / "cgroup.procs").write_text("")
    another = build_spec(pwd.getpwuid(spec.uid))
    server = started.execute(replace(another, cgroups=(str(group),), argv=("/bin/echo", "STARTED")))
    assert server.wait() == 0
    assert ((group / "tasks").read_text(), (group / "cgroup.procs").read_text()) == ("0", "")
    server = started.execute(
        replace(
            build_spec(pwd.getpwuid(spec.uid)),
            cgroups=(str(tmp_path / "none"),),
            argv=("/bin/echo", "STARTED"),
        )
    )
    assert server.wait() == ExitCode.LIMITS
    assert "cannot join its control group" in server.log_text()
    assert "STARTED" not in server.log_text()


@as_root
@pytest.mark.parametrize("call", ["setgroups", "setresgid", "setresuid"])
def test_a_call_that_only_pretends_is_found_out(
    started: Launcher, spec: LaunchSpec, call: str
) -> None:
    """The kernel never does that; a filter or a tracer between might."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    server = started.execute(
        replace(spec, argv=("/bin/sh", "-c", "echo STARTED; id")),
        *(strace, "-f", "-qq", "-o", "/dev/null", "-e", f"inject={call}:retval=0:when=1"),
    )
    assert server.wait() in (ExitCode.STILL_PRIVILEGED, ExitCode.ACCOUNT), server.log_text()
    assert "STARTED" not in server.log_text()


@as_root
def test_without_root_a_user_starts_their_own(started: Launcher, spec: LaunchSpec) -> None:
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("setpriv is not installed")
    own = (setpriv, f"--reuid={spec.uid}", f"--regid={spec.gid}", "--clear-groups")
    said = probe(started, spec, *own)
    assert said["uids"] == [spec.uid] * 3
    stranger = replace(spec, uid=spec.uid + 1, server_id="0123456789ab")
    server = started.execute(replace(stranger, argv=("/bin/echo", "STARTED")), *own)
    assert server.wait() == ExitCode.SPEC
    assert f"runs as uid {spec.uid} and cannot start anything as uid" in server.log_text()
    assert "STARTED" not in server.log_text()


@as_root
def test_an_installation_that_its_user_cannot_read_is_refused(
    started: Launcher, spec: LaunchSpec, tmp_path: Path
) -> None:
    """Jupyter passes over such a configuration, and would serve whoever finds its port."""
    copy = tmp_path / "private"
    shutil.copytree(Path(SOURCE) / "carrel_agent", copy / "carrel_agent")
    copy.chmod(0o700)
    server = started.execute(spec, source=str(copy))
    assert server.wait() == ExitCode.CONFIGURATION
    assert "may not read" in server.log_text()
    assert "installed where every account can read them" in server.log_text()

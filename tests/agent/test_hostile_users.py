"""What a user with a shell can try against the host, the agent and their own server's limits."""

import os
import pwd
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.agent_host import SMALL_SERVER, AgentHost, has_ended, running_host, wait_for

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="accounts and file systems are root's to make"),
]

ODD = 4200
"""The first uid of accounts that only the agent's own mount namespace knows."""
LONG = "l" + "o" * 200 + "ng"
NAMES = ["a b", "r-f", "we;ird$(id)", "quo'te\"", "per%cent", "ünï", "tab\tname", "..", LONG]


@pytest.fixture(scope="module")
def odd_host(
    account: pwd.struct_passwd, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AgentHost]:
    """A host whose accounts have odd names, root a second one, and one account two."""
    own = Path("/etc/passwd").read_text()
    file = tmp_path_factory.mktemp("odd") / "passwd"
    with AgentHost(account, wrapper=_with_accounts(file)) as host:
        lines = [f"toor:x:0:0::{host.base}:/bin/sh", f"twice:x:{ODD}:{ODD}::{host.base}:/bin/sh"]
        for uid, name in enumerate(NAMES, ODD):
            home = host.base / "homes" / f"{uid}"
            home.mkdir(parents=True)
            os.chown(home, uid, uid)
            lines.insert(0, f"{name}:x:{uid}:{uid}::{home}:/bin/sh")
        file.write_text(own + "\n".join(lines) + "\n")
        yield host.start()


def _with_accounts(file: Path) -> list[str]:
    script = 'mount --make-rprivate / && mount --bind "$0" /etc/passwd && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, str(file)]


def after(script: str) -> list[str]:
    """Return the command of a server that does something else first."""
    serve = shlex.join([sys.executable, "-I", "-S", str(SMALL_SERVER), "good"])
    return ["/bin/sh", "-c", f"{script} exec {serve}"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("toor", "is root"),
        ("twice", "is another name of the account"),
        ("nobody", "system"),
    ],
)
def test_names_that_are_somebody_elses_too_are_refused(
    odd_host: AgentHost, name: str, words: str
) -> None:
    """T08: a second name of root's, a second name of somebody's, nobody."""
    reply = odd_host.put(odd_host.spec("good", account=name))
    assert (reply.status_code, reply.json()["code"]) == (400, "account_refused")
    assert words in reply.json()["message"]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_odd_names_are_names(odd_host: AgentHost, name: str) -> None:
    """T08: nothing is made of a name but an argument, a variable and a line of JSON."""
    uid = ODD + NAMES.index(name)
    report = odd_host.started("good", account=name, user=name)
    try:
        assert report["peer_uid"] == uid
        environment = Path(f"/proc/{report['pid']}/environ").read_bytes().split(b"\0")
        assert f"USER={name}".encode() in environment
        assert Path(f"/proc/{report['pid']}/cwd").readlink().name == str(uid)
    finally:
        odd_host.stop_server(report["server_id"])
        odd_host.wait_state(report["server_id"], "stopped")


def test_a_program_that_becomes_root_ends_with_its_server(host: AgentHost) -> None:
    """A setuid program leaves the user's rights and environment, but not the control group."""
    program = host.base / "sleep"
    shutil.copy("/bin/sleep", program)
    program.chmod(0o4755)
    report = host.started(command=after(f"{program} 1000 &"))

    def found() -> list[int]:
        return [int(one.name) for one in Path("/proc").glob("[0-9]*") if _is(one, program)]

    [pid] = wait_for("the program", found)
    assert "Uid:\t" + f"{host.account.pw_uid}\t0\t0\t0" in Path(f"/proc/{pid}/status").read_text()
    host.stop_server(report["server_id"])
    host.wait_state(report["server_id"], "stopped")
    assert has_ended(pid)


def test_a_server_that_becomes_another_account_can_be_stopped_by_the_next_agent(
    account: pwd.struct_passwd,
) -> None:
    """As most accounts can, by user namespaces: to a uid that is neither its own nor root's."""
    with running_host(account) as host:
        program = host.base / "setpriv"
        shutil.copy("/usr/bin/setpriv", program)
        program.chmod(0o4755)
        become = [str(program), "--reuid=60123", "--regid=60123", "--clear-groups"]
        report = host.started(command=[*become, "/bin/sleep", "1000"], listen="nowhere")
        status = Path(f"/proc/{report['pid']}/status")
        wait_for("another account", lambda: "Uid:\t60123\t60123" in status.read_text())
        host.kill_agent()
        host.stop_server(report["server_id"])
        host.wait_state(report["server_id"], "stopped")
        assert has_ended(report["pid"])


def _is(process: Path, program: Path) -> bool:
    try:
        return (process / "exe").readlink() == program
    except OSError:
        return False


def test_control_groups_are_closed_to_those_in_them(host: AgentHost) -> None:
    report = host.started("good", limits={"processes": 20, "memory_bytes": 256 << 20})
    (group,) = [r.group for r in host.records() if r.server_id == report["server_id"]]
    assert group is not None
    directories = [path for path, _ in group.controllers.values()]
    directories += [group.unified] if group.unified else []
    assert directories
    tries = "; ".join(
        f"echo 0 > {place}/cgroup.procs; echo 99 > {place}/pids.max; mkdir {place}/mine"
        for each in directories
        for place in (each, each.parent)
    )
    tried = subprocess.run(
        ["/bin/sh", "-c", f"{tries}; echo done"],
        user=host.account.pw_uid,
        group=host.account.pw_gid,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=True,
    )
    assert tried.stdout == "done\n"
    assert tried.stderr.count("\n") == 6 * len(directories), "each of them was refused"
    assert not [path for each in directories for path in each.glob("mine")]
    host.stop_server(report["server_id"])
    host.wait_state(report["server_id"], "stopped")


def test_a_line_without_end_fills_nothing_and_is_cut(host: AgentHost) -> None:
    """AGT-33: 64 MiB in one line."""
    report = host.started(command=after("head -c 67108864 /dev/zero | tr '\\0' x;"))
    server = report["server_id"]
    shown = host.lines(server, 200)
    assert max(map(len, shown)) <= 500
    with host.client.stream(f"/servers/{server}/log/stream?lines=1") as lines:
        assert len(next(lines)) <= 500
        host.stop_server(server)
    exit_ = host.wait_state(server, "stopped")["exit"]
    assert max(map(len, exit_["log_tail"])) <= 500
    kept = sum(path.stat().st_size for path in (host.state / "logs").glob(f"{server}*"))
    assert kept <= 2 << 20


def test_what_a_user_writes_for_pam_reaches_nobody_elses_process(
    account: pwd.struct_passwd,
) -> None:
    """A user's own variables (~/.pam_environment) are theirs alone: no process of root's has them.

    Every program that the loader starts under LD_DEBUG_OUTPUT leaves a file, as whoever it is.
    """
    home = Path(account.pw_dir)
    rules = Path("/etc/pam.d") / f"carrel-test-{os.getpid()}"
    rules.write_text(
        "account required pam_permit.so\n"
        "session required pam_env.so conffile=/dev/null user_readenv=1\n"
    )
    try:
        with running_host(account, pam_service=rules.name) as host:
            traces = host.base / "traces"
            traces.mkdir()
            traces.chmod(0o1777)
            own = home / ".pam_environment"
            own.write_text(
                f"LD_DEBUG=libs\nLD_DEBUG_OUTPUT={traces}/t\nMINE=1\nHOME=/root\nUSER=root\n"
            )
            os.chown(own, account.pw_uid, account.pw_gid)
            for runner, mode in (("exec", ("good",)), ("fork", ())):
                report = host.started(*mode, runner=runner, start_timeout_seconds=90)
                raw = Path(f"/proc/{report['pid']}/environ").read_bytes().split(b"\0")
                if runner == "exec":
                    assert b"MINE=1" in raw
                    assert f"HOME={home}".encode() in raw
                    assert f"USER={account.pw_name}".encode() in raw
                host.stop_server(report["server_id"])
                host.wait_state(report["server_id"], "stopped")
            owners = {path.stat().st_uid for path in traces.iterdir()}
            assert owners == {account.pw_uid}
    finally:
        rules.unlink()
        (home / ".pam_environment").unlink(missing_ok=True)


FULL_TMP = """
set -e
mount --make-rprivate /
n=0
for place in "$BASE" "$PROGRAM"; do
    n=$((n + 1)); mkdir -p "/var/tmp/carrel-kept-$$-$n"
    mount --rbind "$place" "/var/tmp/carrel-kept-$$-$n"
done
mount -t tmpfs -o size=256k,mode=1777 tmpfs /tmp
n=0
for place in "$BASE" "$PROGRAM"; do
    n=$((n + 1)); mkdir -p "$place"
    mount --move "/var/tmp/carrel-kept-$$-$n" "$place"
    rmdir "/var/tmp/carrel-kept-$$-$n"
done
dd if=/dev/zero of=/tmp/big bs=4k 2> /dev/null || true
exec "$@"
"""


def test_a_full_tmp_keeps_nobody_from_starting(account: pwd.struct_passwd) -> None:
    """Everybody may fill /tmp: JupyterLab starts all the same, and its kernels open no port."""
    program = str(Path(sys.prefix).resolve().parent)
    wrapper = ["unshare", "--mount", "sh", "-c", FULL_TMP, "sh"]
    with AgentHost(account, wrapper=wrapper) as host:
        host.start(BASE=str(host.base), PROGRAM=program)
        report = host.started(runner="fork", start_timeout_seconds=90)
        assert report["runner"] == "fork"
        assert not [line for line in host.lines(report["server_id"]) if "[carrel]" in line]
        host.stop_server(report["server_id"])
        host.wait_state(report["server_id"], "stopped")

"""`carrel-agent`, as an operator meets it."""

import os
import pwd
import subprocess
import sys
import tomllib
from pathlib import Path

from carrel_agent.settings import AgentSettings
from carrel_shared.service_auth import new_key


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-m", "carrel_agent", *arguments],
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_a_generated_file_holds_every_setting() -> None:
    done = run("--generate-config")
    assert done.returncode == 0
    assert tomllib.loads(done.stdout) == {"agent": {}}
    for name in AgentSettings.model_fields:
        assert f"# {name} = " in done.stdout


def test_every_wrong_setting_is_named_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "carrel.toml"
    path.write_text(
        "[agent]\n"
        'listen = "nowhere"\n'
        f'key = "{new_key()}"\n'
        'hub_url = "unix:/x"\n'
        'hub_key = "short"\n'
        'state_dir = "relative"\n'
        f'run_dir = "/tmp/{"x" * 100}"\n'
        'python = "python3"\n'
        "colour = 1\n"
    )
    done = run("--config", str(path), "serve", CARREL_AGENT__WEIGHT="1")
    assert done.returncode == 78
    for words in (
        ":2: agent.listen",
        ":5: agent.hub_key",
        ":6: agent.state_dir",
        ":7: agent.run_dir",
        ":8: agent.python",
        ":9: agent.colour",
        "WEIGHT",
    ):
        assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_group_that_is_missing_is_a_wrong_setting(tmp_path: Path) -> None:
    import socket

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        done = subprocess.run(
            [sys.executable, "-I", "-m", "carrel_agent", "serve"],
            env={
                "CARREL_KEEPER_FD": str(theirs.fileno()),
                "CARREL_AGENT__LISTEN": f"unix:{tmp_path}/s",
                "CARREL_AGENT__KEY": new_key(),
                "CARREL_AGENT__HUB_URL": "unix:/x",
                "CARREL_AGENT__HUB_KEY": new_key(),
                "CARREL_AGENT__STATE_DIR": str(tmp_path),
                "CARREL_AGENT__RUN_DIR": "/tmp/ca",
                "CARREL_AGENT__SOCKET_GROUP": "no-such-group",
            },
            pass_fds=[theirs.fileno()], capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
    assert done.returncode == 78
    assert "no-such-group" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_line_for_sudo_names_this_account_and_one_program() -> None:
    done = run("sudoers", "%jupyter")
    assert done.returncode == 0
    name = pwd.getpwuid(os.getuid()).pw_name
    assert done.stdout.startswith(f"{name} ALL=(%jupyter) NOPASSWD: {sys.executable} -I -S ")
    assert done.stdout.count("sudo_helper.py") == 3
    assert run("sudoers").returncode == 2

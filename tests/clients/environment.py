"""The environment that real clients run in: theirs, made once, never the project's own."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PINS = ROOT / "requirements" / "clients.txt"
# In a tree that is closed to other accounts, with what `scripts/venv-path` chose for that reason.
_CLOSED = not Path(sys.prefix).is_relative_to(ROOT)
HOME = Path(sys.prefix) / "clients" if _CLOSED else ROOT / ".clients"
PYTHON = HOME / "venv" / "bin" / "python"
CODE_SERVER = "code-server@4.100.3"
CODE_SERVER_SCRIPT = HOME / "code-server/node_modules/code-server/out/node/entry.js"
"""What Node runs."""


def make() -> Path:
    """Make the environment, unless the one that is there was made from the same pins.

    Returns:
        Its Python.
    """
    HOME.mkdir(exist_ok=True)
    with (HOME / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = HOME / "made-from"
        wanted = hashlib.sha256(PINS.read_bytes()).hexdigest()
        if not stamp.exists() or stamp.read_text() != wanted:
            uv = [str(Path(sys.executable).with_name("uv")), "--quiet"]
            _run(*uv, "venv", "--clear", "--python", sys.executable, str(HOME / "venv"))
            _run(*uv, "pip", "install", "--python", str(PYTHON), "--no-deps", "-r", str(PINS))
            stamp.write_text(wanted)
    return PYTHON


def make_code_server() -> None:
    """Make code-server, unless it is there; its JavaScript is packaged, one module is compiled."""
    home = HOME / "code-server"
    HOME.mkdir(exist_ok=True)
    with (HOME / "lock-code-server").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = home / "made-from"
        if not stamp.exists() or stamp.read_text() != CODE_SERVER:
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir()
            quiet = ["--no-audit", "--no-fund", "--loglevel=error"]
            _run("npm", "install", "--ignore-scripts", *quiet, "--prefix", str(home), CODE_SERVER)
            _run(
                "npm", "rebuild", "argon2", "--prefix", str(home), npm_config_build_from_source="1"
            )
            editor = str(home / "node_modules" / "code-server" / "lib" / "vscode")
            _run("npm", "install", "--omit=dev", "--ignore-scripts", *quiet, "--prefix", editor)
            stamp.write_text(CODE_SERVER)


def search_path() -> str:
    """Return a PATH on which the clients come first, then what this tree installs."""
    return f"{PYTHON.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"


def _run(*command: str, **variables: str) -> None:
    environ = {**os.environ, **variables}
    done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"

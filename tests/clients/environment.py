"""The environment that real clients run in: theirs, made once, never the project's own."""

import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PINS = ROOT / "requirements" / "clients.txt"
HOME = ROOT / ".clients"
PYTHON = HOME / "venv" / "bin" / "python"


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


def search_path() -> str:
    """Return a PATH on which the clients come first, then what this tree installs."""
    return f"{PYTHON.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"

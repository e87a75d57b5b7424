"""Run the keeper: `python -I -S PATH/keeper/main.py [--config FILE]`.

Without site-packages it takes a third of the memory, and nothing that is installed, or broken, in
an environment can keep it from starting.
"""

# pathlib costs a megabyte, an eighth of what the keeper needs.
# ruff: noqa: PTH103, PTH120

import fcntl
import os
import sys
import time

if __name__ == "__main__":
    # -I keeps this file's own directory off the path; the package lies two levels up.
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(__file__))))

from carrel_agent.keeper.console import say
from carrel_agent.keeper.keeper import EX_CONFIG, Keeper
from carrel_agent.keeper.options import OptionsError, read_options
from carrel_agent.keeper.process_table import become_subreaper

LOCK_SECONDS = 1.0
EX_UNAVAILABLE = 69


def main() -> int:
    """Run until told to stop; return the exit status."""
    try:
        options = read_options(sys.argv[1:], os.environ)
    except OptionsError as error:
        say("keeper_cannot_start", level="ERROR", reason=error)
        return EX_CONFIG
    try:
        os.umask(0o077)
        os.makedirs(options.state_dir, mode=0o700, exist_ok=True)
        lock = os.open(f"{options.state_dir}/keeper.lock", os.O_RDWR | os.O_CREAT, 0o600)
        become_subreaper()
    except OSError as error:
        say("keeper_cannot_start", level="ERROR", reason=f"{options.state_dir}: {error.strerror}")
        return EX_CONFIG
    if not _lock(lock):
        say("keeper_cannot_start", level="ERROR", reason=f"another keeper has {options.state_dir}")
        return EX_UNAVAILABLE
    return Keeper(options, dict(os.environ)).run()


def _lock(descriptor: int) -> bool:
    """Take the lock, giving a keeper that is just ending a moment."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        else:
            return True


if __name__ == "__main__":
    sys.exit(main())

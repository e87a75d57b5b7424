"""`python -m carrel_agent.pam --socket PATH --uid UID [--service NAME]`."""

import argparse
import asyncio
import os
import pwd
import re
import sys
from functools import partial
from pathlib import Path

from carrel_agent.keeper.console import say
from carrel_agent.pam.server import Limits, PamServer, serve
from carrel_shared.addresses import AddressError, UnixAddress, bind_address, parse_address

EX_FAILURE = 1
EX_CONFIG = 78


def main() -> int:
    """Serve until told to stop; return the exit status."""
    parser = argparse.ArgumentParser(prog="carrel-pam", description="Checks passwords for the hub.")
    parser.add_argument("--socket", type=Path, required=True, help="where the hub asks")
    parser.add_argument("--uid", type=int, required=True, help="the hub's uid, which may ask")
    parser.add_argument("--service", default="login", help="the PAM service (default: login)")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long a check may take")
    parser.add_argument("--attempts", type=int, default=8, help="how many are checked at once")
    options = parser.parse_args()
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", options.service):
        print(f"carrel-pam: {options.service!r} is no name of a PAM service", file=sys.stderr)
        return EX_CONFIG
    try:
        address = parse_address(f"unix:{options.socket}")
        listener = bind_address(address)
        assert isinstance(address, UnixAddress)  # noqa: S101 - its text says unix
        _open_to(options.uid, Path(address.path))
    except (AddressError, OSError) as error:
        print(f"carrel-pam: {error}", file=sys.stderr)
        return EX_FAILURE
    limits = Limits(attempts=options.attempts, seconds=options.seconds)

    tell = partial(say, service="pam")
    tell("pam_ready", socket=address)
    asyncio.run(
        serve(
            PamServer(uid=options.uid, service=options.service, limits=limits, say=tell), listener
        )
    )
    tell("pam_ended")
    return 0


def _open_to(uid: int, path: Path) -> None:
    """Let the hub's account connect, by its group; who it really is, is checked on each socket."""
    if os.geteuid() != 0 or uid == 0:
        return
    try:
        group = pwd.getpwuid(uid).pw_gid
    except KeyError:
        os.chown(path, uid, -1)
        return
    os.chown(path, 0, group)
    path.chmod(0o660)


if __name__ == "__main__":
    sys.exit(main())

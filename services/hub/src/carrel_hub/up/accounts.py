"""Unix accounts that Carrel needs: looked up, made, and the demo account removed again.

What says that we made the demo account is its comment field, so that nobody else's is ever removed.
"""

import grp
import os
import pwd
import select
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from carrel_hub.up.errors import UpError
from carrel_hub.up.people import DEMO_ACCOUNT, may_have_notebooks

DEMO_COMMENT = "Carrel demo account (made by carrel up)"
_KILL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Account:
    """What a process is started as."""

    name: str
    uid: int
    gid: int
    home: str
    group: str = ""


def find_account(name: str) -> Account | None:
    """Return the account of exactly that name, or None."""
    try:
        entry = pwd.getpwnam(name)
    except (KeyError, ValueError):
        return None
    if entry.pw_name != name:
        return None
    return _account(entry)


def own_account() -> Account:
    """Return the account this process runs as.

    Raises:
        UpError: If the uid has no name.
    """
    uid = os.geteuid()
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        raise UpError(
            f"uid {uid} has no name in /etc/passwd, and Carrel needs one to sign you in"
        ) from None
    return _account(entry)


def _account(entry: pwd.struct_passwd) -> Account:
    try:
        group = grp.getgrgid(entry.pw_gid).gr_name
    except KeyError:
        group = ""
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir, group)


def ensure_service_account(name: str, *, make: bool) -> tuple[Account, bool]:
    """Return the account of hub and proxy, and whether it was made just now.

    Args:
        make: Make a system account if there is none of that name.

    Raises:
        UpError: If it is missing and not to be made, or is root.
    """
    made = False
    account = find_account(name)
    if account is None and make:
        _run(
            *("useradd", "--system", "--user-group", "--no-create-home"),
            *("--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin"),
            *("--comment", "Carrel hub and proxy", name),
        )
        account, made = find_account(name), True
    if account is None:
        raise UpError(f"--service-user {name}: there is no such unix account")
    if account.uid == 0:
        raise UpError(f"--service-user {name}: hub and proxy do not run as root")
    return account, made


def ensure_demo_account() -> bool:
    """Make the demo account if it is missing; return whether it was made just now.

    Raises:
        UpError: If it cannot be made, or an account of that name is not a person's.
    """
    account = find_account(DEMO_ACCOUNT)
    if account is None:
        _run(
            *("useradd", "--create-home", "--shell", "/bin/bash"),
            *("--comment", DEMO_COMMENT, DEMO_ACCOUNT),
        )
        return True
    if not may_have_notebooks(account.uid):
        raise UpError(f"the account {DEMO_ACCOUNT} has uid {account.uid}, which is no person's")
    return False


def remove_demo_account() -> str:
    """End what the demo account runs and remove it with its home; return what was done.

    Raises:
        UpError: If the account is not ours to remove, or cannot be removed.
    """
    try:
        entry = pwd.getpwnam(DEMO_ACCOUNT)
    except KeyError:
        return f"There is no account {DEMO_ACCOUNT}."
    if entry.pw_gecos != DEMO_COMMENT or not may_have_notebooks(entry.pw_uid):
        raise UpError(f"the account {DEMO_ACCOUNT} was not made by Carrel, so it stays")
    if os.geteuid() != 0:
        raise UpError(f"removing the account {DEMO_ACCOUNT} needs root")
    ended = _end_processes(entry.pw_uid)
    _run("userdel", "--remove", DEMO_ACCOUNT)
    also = f" It was still running something: processes ended: {ended}." if ended else ""
    return f"Removed the account {DEMO_ACCOUNT} and its home {entry.pw_dir}.{also}"


def _end_processes(uid: int) -> int:
    ended = 0
    for number in (signal.SIGTERM, signal.SIGKILL):
        descriptors = list(_processes_of(uid))
        for descriptor in descriptors:
            signal.pidfd_send_signal(descriptor, number)
        for descriptor in descriptors:
            select.select([descriptor], [], [], _KILL_SECONDS)
            os.close(descriptor)
        ended = max(ended, len(descriptors))
    return ended


def _processes_of(uid: int) -> Iterator[int]:
    """Yield a pidfd of each process that runs as `uid`, checked after it was opened."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            descriptor = os.pidfd_open(int(entry.name))
        except OSError:
            continue
        try:
            status = (entry / "status").read_text(encoding="utf-8", errors="replace")
            uids = next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1:]
            if "Z (zombie)" not in status and set(uids) == {str(uid)}:
                yield descriptor
                continue
        except (OSError, StopIteration):
            pass
        os.close(descriptor)


def _run(*command: str) -> None:
    import shutil  # these stay out of memory where no account is made
    import subprocess

    path = shutil.which(command[0], path="/usr/sbin:/sbin:/usr/bin:/bin")
    if path is None:
        raise UpError(f"{command[0]} is missing: install Debian's package passwd")
    done = subprocess.run(
        [path, *command[1:]],
        check=False,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode != 0:
        raise UpError(f"{command[0]} failed: {done.stderr.strip() or done.returncode}")

"""Unix accounts that a test makes and removes again."""

import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Account:
    """An account with a home directory and a password."""

    name: str
    password: str = field(repr=False)


@contextmanager
def temporary_account(label: str) -> Iterator[Account]:
    """Make an account whose name begins with `carrel-t-`; remove it with its home at the end."""
    account = Account(f"carrel-t-{label}-{secrets.token_hex(2)}", secrets.token_urlsafe(12))
    subprocess.run(["useradd", "-m", "-s", "/bin/bash", account.name], check=True)
    try:
        line = f"{account.name}:{account.password}\n".encode()
        subprocess.run(["chpasswd"], input=line, check=True)
        yield account
    finally:
        subprocess.run(["userdel", "-r", "-f", account.name], check=False, capture_output=True)

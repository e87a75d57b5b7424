"""Which unix accounts may run servers here."""

import grp
import os
import pwd
from dataclasses import dataclass
from typing import Protocol

from carrel_agent.errors import AccountRefusedError, SetupError, UnavailableError
from carrel_agent.supervise.patience import within
from carrel_shared.wire.servers import ServerSpec

OVERFLOW_UID = 65534
"""`nobody`: what files of unmapped users seem to belong to. Nothing may run as it."""
LOOKUP_SECONDS = 10.0
SHARED = "shared-insecure"
"""What a host reports that runs everybody's servers as one account."""


@dataclass(frozen=True, slots=True)
class Account:
    """A unix account as the name service knows it."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    shell: str


class Accounts(Protocol):
    """Which account runs whose servers."""

    @property
    def reported(self) -> str:
        """What the hub is told of it."""
        ...

    async def find(self, spec: ServerSpec) -> Account:
        """Return the account that a server is to run as.

        Raises:
            AccountRefusedError: Nothing may run as what the spec asks for.
            UnavailableError: It cannot be told just now.
        """
        ...


class UnixAccounts:
    """Everybody's servers run as the account that the hub names.

    Args:
        min_uid: Lower uids are the system's and run nothing.
        any_account: A runner starts servers as other accounts without being root.
    """

    def __init__(self, min_uid: int, *, any_account: bool = False) -> None:
        self._min_uid = min_uid
        self._own_uid = 0 if any_account else os.geteuid()

    @property
    def reported(self) -> str:
        """`any` as root, else the one account there is."""
        return "any" if self._own_uid == 0 else account_name(self._own_uid)

    async def find(self, spec: ServerSpec) -> Account:
        """Look the account up."""
        if not spec.account:
            raise AccountRefusedError(
                f"{spec.user!r} has no unix account, and this host runs servers as their users'"
            )
        return await look_up_account(spec.account, own_uid=self._own_uid, min_uid=self._min_uid)


async def look_up_account(name: str, *, own_uid: int, min_uid: int) -> Account:
    """Return the account that a server is to run as.

    The name service may be a network away and hang, so it is asked in a thread, for a while.

    Raises:
        AccountRefusedError: If there is no such account, or nothing may run as it here.
        UnavailableError: If the name service does not answer.
    """
    try:
        return await within(
            LOOKUP_SECONDS,
            ("account", name, own_uid, min_uid),
            lambda: _look_up(name, own_uid, min_uid),
        )
    except TimeoutError:
        raise UnavailableError(
            f"the name service did not say within {LOOKUP_SECONDS:g} seconds who {name!r} is"
        ) from None


def _look_up(name: str, own_uid: int, min_uid: int) -> Account:
    try:
        entry = pwd.getpwnam(name)
    except (KeyError, ValueError):  # ValueError: NUL in the name
        raise AccountRefusedError(f"there is no unix account {name!r} on this host") from None
    check_account(entry, name, own_uid=own_uid, min_uid=min_uid)
    groups = os.getgrouplist(name, entry.pw_gid) if own_uid == 0 else os.getgroups()
    return Account(
        name=name,
        uid=entry.pw_uid,
        gid=entry.pw_gid,
        groups=tuple(groups),
        home=entry.pw_dir,
        shell=entry.pw_shell or "/bin/sh",
    )


def check_account(entry: pwd.struct_passwd, name: str, *, own_uid: int, min_uid: int) -> None:
    """Refuse what must not run a server.

    Args:
        entry: What the name service answered for `name`.
        own_uid: The agent's uid; without root it runs its own account only.
        min_uid: Lower uids are the system's.

    Raises:
        AccountRefusedError: Saying why.
    """
    if entry.pw_name != name:
        # A directory that folds case or strips domains makes two names one account.
        raise AccountRefusedError(
            f"the account {name!r} is called {entry.pw_name!r} on this host; only the exact name"
            " is accepted"
        )
    if own_uid != 0:
        if entry.pw_uid != own_uid:
            own = account_name(own_uid)
            raise AccountRefusedError(
                f"this agent runs as {own!r} and starts servers for that account only, not for"
                f" {name!r}; run the agent as root to serve several accounts"
            )
        return
    if entry.pw_uid == 0:
        raise AccountRefusedError(f"{name!r} is root, and nothing of a user's ever runs as root")
    if entry.pw_uid < min_uid or entry.pw_uid == OVERFLOW_UID:
        raise AccountRefusedError(
            f"{name!r} has uid {entry.pw_uid} and is an account of the system (people's begin at"
            f" min_uid = {min_uid})"
        )
    if (first := account_name(entry.pw_uid)) not in (name, str(entry.pw_uid)):
        # Whoever is two users to the hub would be one to this host, files and servers in common.
        raise AccountRefusedError(
            f"{name!r} is another name of the account {first!r} on this host; use that one, or give"
            f" {name!r} a uid of its own"
        )


def check_uid(account: Account, expected: int | None) -> None:
    """Refuse an account that has become somebody else, as after an account was made anew.

    Args:
        expected: Its uid at earlier starts here, or on a host with the same homes.

    Raises:
        AccountRefusedError: Saying both.
    """
    if expected is not None and account.uid != expected:
        raise AccountRefusedError(
            f"{account.name!r} has uid {account.uid} on this host, and its earlier servers, here or"
            f" on a host with the same homes, had {expected}: the files there are not its own any"
            " more. Give it that uid, or have an administrator forget the old one"
        )


def account_name(uid: int) -> str:
    """Return the name of an account, or its number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_id(name: str | None) -> int | None:
    """Return a group's number.

    Raises:
        SetupError: If there is no such group.
    """
    if name is None:
        return None
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise SetupError(
            f"socket_group: there is no group {name!r} on this host; create it, or name the one of"
            " the account that runs hub and proxy"
        ) from None

"""Who is at the console, and which account that is. Decisions only; `accounts` acts on them."""

from collections.abc import Callable
from dataclasses import dataclass

from carrel_hub.up.errors import UpError

MIN_UID = 1000
NOBODY_UID = 65534
DEMO_ACCOUNT = "carrel-demo"
ADMINISTRATOR = "admin"


@dataclass(frozen=True, slots=True)
class Person:
    """Who signs in by the console's link, as an administrator.

    Attributes:
        account: The unix account of their notebooks; None for an administrator of the hub alone.
        make_demo: The account is the demo account, to be made if it is missing.
    """

    name: str
    account: str | None
    make_demo: bool = False


def choose_person(
    *,
    uid: int,
    own_name: str,
    requested: str | None,
    sudo_user: str | None,
    demo: bool,
    uid_of: Callable[[str], int | None],
) -> Person:
    """Return who is at the console.

    Args:
        uid: The effective user id of `carrel`.
        own_name: That user's name.
        requested: `--user`.
        sudo_user: `$SUDO_USER`; only root believes it.
        demo: `--demo`.
        uid_of: Looks a unix account up; None when there is none.

    Raises:
        UpError: If the requested one cannot have notebooks here.
    """
    if uid != 0:
        if requested not in (None, own_name):
            raise UpError(
                f"--user {requested}: as {own_name} Carrel runs for {own_name} alone;"
                " start it as root to serve others"
            )
        return Person(own_name, own_name)
    if requested is not None:
        found = uid_of(requested)
        if found is None:
            raise UpError(f"--user {requested}: there is no such unix account")
        if not may_have_notebooks(found):
            raise UpError(
                f"--user {requested}: its uid is {found}; notebooks run as people's accounts"
                f" (uid {MIN_UID} or higher), never as root or a system account"
            )
        return Person(requested, requested)
    if sudo_user and (found := uid_of(sudo_user)) is not None and may_have_notebooks(found):
        return Person(sudo_user, sudo_user)
    if demo:
        return Person(DEMO_ACCOUNT, DEMO_ACCOUNT, make_demo=True)
    return Person(ADMINISTRATOR, None)


def may_have_notebooks(uid: int) -> bool:
    """Whether an account is a person's, by its number."""
    return uid >= MIN_UID and uid != NOBODY_UID

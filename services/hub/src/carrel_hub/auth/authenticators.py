"""Whether a name and a password belong together: asked of PAM, or of the settings.

With shared passwords and with `dummy`, whoever knows a password may call themselves anything. So
they get no unix account by that: their servers run only where a host's own settings say that it
runs everybody's as one account.
"""

import hmac
from dataclasses import dataclass

import structlog
from pydantic import SecretStr

from carrel_hub.auth.pam_client import EXPIRED, check_password
from carrel_hub.auth.rules import administrators_named
from carrel_hub.auth.settings import AuthSettings

log = structlog.get_logger(__name__)

WRONG = "Invalid user name or password. Please try again."
TOO_OLD = (
    "Your password has expired. Change it on the machine itself (the command is “passwd”), then"
    " sign in here with the new one."
)
OTHER_NAME = (
    "The password is right, but the system knows this account by another name; please sign in by"
    " that name."
)


@dataclass(frozen=True, slots=True)
class Checked:
    """The answer.

    Attributes:
        account: The unix account that name and password prove; None where they prove none.
        group: The group that the password puts its user into.
        reason: Why not, for the log.
        message: Why not, for the person, where there is more to say than that it is wrong.
    """

    ok: bool
    account: str | None = None
    group: str | None = None
    reason: str = ""
    message: str = ""


async def check(settings: AuthSettings, name: str, password: str) -> Checked:
    """Say whether a password is this name's.

    Args:
        name: Normalised, as it was typed: not mapped.

    Raises:
        UnavailableError: It cannot be checked just now.
    """
    match settings.authenticator:
        case "pam":
            return await _ask_pam(settings.pam_socket or "", name, password)
        case "dummy":
            wanted = settings.dummy_password
            return Checked(wanted is None or _same(wanted, password), reason="wrong password")
        case "shared-password":
            return _check_shared(settings, name, password)
        case "none":
            return Checked(False, reason="passwords are switched off")


async def _ask_pam(socket: str, name: str, password: str) -> Checked:
    verdict = await check_password(socket, name, password)
    if not verdict.ok:
        message = TOO_OLD if verdict.reason == EXPIRED else ""
        return Checked(False, reason=verdict.reason, message=message)
    if verdict.account != name:
        log.warning("sign_in_account_differs", name=name[:64], account=verdict.account[:64])
        return Checked(False, reason="another account", message=OTHER_NAME)
    return Checked(True, account=verdict.account)


def _check_shared(settings: AuthSettings, name: str, password: str) -> Checked:
    """Every password is compared each time, so that the time tells nothing of them."""
    is_admins = _same(settings.admin_password, password)
    is_users = _same(settings.user_password, password)
    groups = [
        group for group, wanted in settings.group_passwords.items() if _same(wanted, password)
    ]
    if settings.username_map.get(name, name) in administrators_named(settings):
        return Checked(is_admins, reason="not the administrators' password")
    if is_users:
        return Checked(True)
    if groups:
        return Checked(True, group=groups[0])
    return Checked(False, reason="wrong password")


def _same(wanted: SecretStr | None, given: str) -> bool:
    if wanted is None or not wanted.get_secret_value():
        return False
    return hmac.compare_digest(wanted.get_secret_value().encode(), given.encode())

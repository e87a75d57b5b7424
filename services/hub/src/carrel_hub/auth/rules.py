"""Who is let in. Pure: settings and facts in, yes or a reason out. A refusal beats any permission.

Nobody is let in until a rule says so. The person at the console of `carrel up` is vouched for by
being there.
"""

from contextlib import suppress
from dataclasses import dataclass

from carrel_hub.auth.names import InvalidNameError
from carrel_hub.auth.settings import AuthSettings

NEVER = frozenset({"root"})
"""Accounts that nobody signs in as: nothing ever runs a notebook as root."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the database says of a user; the defaults are those of somebody new."""

    exists: bool = False
    disabled: bool = False
    console: bool = False
    hub_only: bool = False
    """The console's administrator without a unix account: a name that belongs to no account."""


@dataclass(frozen=True, slots=True)
class Admission:
    """The answer. `reason` is for the person, once the password was right."""

    admitted: bool
    admin: bool = False
    reason: str = ""


def admit(settings: AuthSettings, name: str, known: Known) -> Admission:
    """Decide whether somebody whose password is right is let in.

    Args:
        name: Normalised.
    """
    if known.disabled or is_blocked(settings, name):
        return Admission(False, reason="This user may no longer sign in here.")
    if name in NEVER:
        return Admission(
            False, reason=f"Nobody signs in as {name}: nothing here ever runs as {name}."
        )
    if known.hub_only:
        return Admission(
            False,
            reason="This name belongs to the administrator at the console, who signs in with the"
            " link that “carrel link” prints.",
        )
    if name in _names(settings, settings.admin_users):
        return Admission(True, admin=True)
    if settings.everybody or known.console or name in _names(settings, settings.allowed_users):
        return Admission(True)
    if known.exists and settings.allow_existing_users:
        return Admission(True)
    return Admission(
        False,
        reason="Your password is right, but nobody has let you in here yet. An administrator can"
        " add your name to “allowed_users” in the settings.",
    )


def anybody_allowed(settings: AuthSettings, *, console_users: bool) -> bool:
    """Whether there is anybody at all who could sign in with a password."""
    if not settings.checks_passwords:
        return False
    return bool(
        settings.everybody
        or settings.allow_existing_users
        or settings.allowed_users
        or settings.admin_users
        or console_users
    )


def people_named(settings: AuthSettings) -> list[str]:
    """Return the names that the settings let in, each once, in order."""
    named = _names(settings, settings.allowed_users) | _names(settings, settings.admin_users)
    return sorted(named - _names(settings, settings.blocked_users) - NEVER)


def administrators_named(settings: AuthSettings) -> frozenset[str]:
    """Return the names that the settings make administrators."""
    return frozenset(
        _names(settings, settings.admin_users) - _names(settings, settings.blocked_users) - NEVER
    )


def is_blocked(settings: AuthSettings, name: str) -> bool:
    """Whether the settings refuse this user everywhere."""
    return bool(settings.blocked_users) and name in _names(settings, settings.blocked_users)


def blocked_names(settings: AuthSettings) -> list[str]:
    """Return the names that the settings refuse everywhere."""
    return sorted(_names(settings, settings.blocked_users))


def _names(settings: AuthSettings, raw: list[str]) -> set[str]:
    found = set()
    for text in raw:
        with suppress(InvalidNameError):  # it can never match anybody
            found.add(settings.name_of(text))
    return found

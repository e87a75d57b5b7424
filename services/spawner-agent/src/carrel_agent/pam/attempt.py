"""The child: one password check, then its end. Run as `python -I -m carrel_agent.pam.attempt`.

PAM runs whatever modules the host is configured with, in this process: they may hang, leak, crash
or print. So each attempt has a process of its own, which its parent kills when it takes too long.
"""

import os
import pwd
import sys
from typing import Any

from carrel_agent.keeper.console import say
from carrel_agent.pam.protocol import (
    MAX_LINE,
    Attempt,
    InvalidAttemptError,
    Outcome,
    parse_attempt,
)

PAM_NEW_AUTHTOK_REQD = 12
WRONG = frozenset({7, 10, 11})
"""PAM_AUTH_ERR, PAM_USER_UNKNOWN, PAM_MAXTRIES: never told apart, so that names cannot be tried."""
DENIED = frozenset({6, 13, 17})
"""PAM_PERM_DENIED, PAM_ACCT_EXPIRED, PAM_CRED_ERR: not this account, whatever the password."""


def main() -> int:
    """Read an attempt from standard input, write its outcome to standard output."""
    service = sys.argv[1]
    # What PAM modules print must not be taken for the answer.
    answer = os.dup(1)
    os.dup2(2, 1)
    try:
        outcome = check(parse_attempt(sys.stdin.buffer.read(MAX_LINE + 1)), service)
    except InvalidAttemptError:
        outcome = Outcome(ok=False, reason="invalid")
    os.write(answer, outcome.encode())
    return 0


def check(attempt: Attempt, service: str) -> Outcome:
    """Ask PAM: is the password right, and may the account be used now?"""
    if _is_root(attempt.user):
        # Root has nothing to do here, and its password is worth guessing.
        return Outcome(ok=False, reason="denied")
    import pam

    authenticator = pam.PamAuthenticator()
    check_account = authenticator.pam_acct_mgmt
    password_was_right = False

    def note_and_check_account(handle: Any, flags: int) -> Any:
        # Reached only after pam_authenticate(3). Which of the two refused is not in the error:
        # where Debian's account stack refuses, pam_deny answers PAM_AUTH_ERR.
        nonlocal password_was_right
        password_was_right = True
        return check_account(handle, flags)

    authenticator.pam_acct_mgmt = note_and_check_account
    if authenticator.authenticate(
        attempt.user, attempt.password, service=service, resetcreds=False
    ):
        return _account(attempt.user)
    return judge(authenticator.code, password_was_right=password_was_right)


def judge(code: int, *, password_was_right: bool) -> Outcome:
    """Return what a PAM error means for the person."""
    if code == PAM_NEW_AUTHTOK_REQD:
        return Outcome(ok=False, reason="password_expired")
    if password_was_right or code in DENIED:
        return Outcome(ok=False, reason="denied")
    if code in WRONG:
        return Outcome(ok=False, reason="wrong")
    say("pam_failed", service="pam", level="ERROR", code=code)
    return Outcome(ok=False, reason="unavailable")


def _is_root(user: str) -> bool:
    try:
        return pwd.getpwnam(user).pw_uid == 0
    except KeyError:
        return False


def _account(user: str) -> Outcome:
    """The name must be exactly the account's: a directory may fold case or strip domains."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        return Outcome(ok=False, reason="denied")
    if entry.pw_name != user:
        return Outcome(ok=False, reason="wrong")
    return Outcome(ok=True, account=entry.pw_name)


if __name__ == "__main__":
    sys.exit(main())

"""The child: one password check, then its end. Run as `python -I -m carrel_agent.pam.attempt`.

PAM runs whatever modules the host is configured with, in this process: they may hang, leak, crash
or print. So each attempt has a process of its own, which its parent kills when it takes too long.
"""

import os
import pwd
import sys

from carrel_agent.keeper.console import say
from carrel_agent.pam.protocol import (
    MAX_LINE,
    Attempt,
    InvalidAttemptError,
    Outcome,
    parse_attempt,
)

PAM_SUCCESS = 0
PAM_NEW_AUTHTOK_REQD = 12
WRONG = frozenset({7, 10, 11})
"""PAM_AUTH_ERR, PAM_USER_UNKNOWN, PAM_MAXTRIES: never told apart, so that names cannot be tried."""
DENIED = frozenset({6, 13, 17})
"""PAM_PERM_DENIED, PAM_ACCT_EXPIRED, PAM_CRED_ERR: the password was right."""


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
    right = authenticator.authenticate(
        attempt.user, attempt.password, service=service, resetcreds=False
    )
    return judge(authenticator.code) if not right else _account(attempt.user)


def judge(code: int) -> Outcome:
    """Return what a PAM error means for the person."""
    if code in WRONG:
        return Outcome(ok=False, reason="wrong")
    if code in DENIED:
        return Outcome(ok=False, reason="denied")
    if code == PAM_NEW_AUTHTOK_REQD:
        return Outcome(ok=False, reason="password_expired")
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

"""What the hub and carrel-pam say to each other: one JSON object a line.

`{"user": NAME, "password": TEXT}` is answered by `{"ok": BOOL, "account": NAME, "reason": WORD}`.
"""

import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any

MAX_LINE = 8 * 1024
MAX_USER = 256
MAX_PASSWORD = 1024

REASONS = {
    "": "the password is right",
    "wrong": "the name or the password is wrong",
    "denied": "the account may not sign in: it has expired, or is not allowed now",
    "password_expired": "the password has expired and must be changed first, outside Carrel",
    "timeout": "the host took too long to check the password",
    "busy": "too many passwords are being checked; try again",
    "invalid": "the request is malformed",
    "unavailable": "the host cannot check passwords; its log says why",
}
"""Every `reason`, and what it means."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class InvalidAttemptError(ValueError):
    """A request that must not reach PAM. The message never quotes it."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One password to check."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer: whether the password is right, and for which unix account."""

    ok: bool
    account: str = ""
    reason: str = ""

    def encode(self) -> bytes:
        """Return the line that says so."""
        return json.dumps(asdict(self)).encode("ascii") + b"\n"


def parse_attempt(line: bytes) -> Attempt:
    """Read a request.

    Control characters are refused in both: NUL would cut what C sees, and line breaks would let a
    value pose as another wherever it is written next.

    Raises:
        InvalidAttemptError: Saying what is wrong with it.
    """
    try:
        request: Any = json.loads(line)
    except ValueError:
        raise InvalidAttemptError("the request is no JSON") from None
    if not isinstance(request, dict) or set(request) != {"user", "password"}:
        raise InvalidAttemptError('the request needs "user" and "password" and nothing else')
    for name, longest in (("user", MAX_USER), ("password", MAX_PASSWORD)):
        value = request[name]
        if not isinstance(value, str) or not value:
            raise InvalidAttemptError(f"{name}: a text is needed")
        try:
            size = len(value.encode("utf-8"))
        except UnicodeEncodeError:
            raise InvalidAttemptError(f"{name}: it is not valid Unicode") from None
        if size > longest:
            raise InvalidAttemptError(f"{name}: at most {longest} bytes are allowed")
        if _CONTROL.search(value):
            raise InvalidAttemptError(f"{name}: control characters are not allowed")
    return Attempt(request["user"], request["password"])

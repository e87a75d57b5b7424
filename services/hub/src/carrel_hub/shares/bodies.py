"""Bodies of calls about shares. Pure."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from carrel_hub.errors import InvalidRequestError

CODE_SECONDS = range(60, 365 * 86400 + 1)
"""How long a code may be good: from a minute to a year."""

DEFAULT_CODE_SECONDS = 86400


@dataclass(frozen=True, slots=True)
class Recipient:
    """With whom a server is shared: a user or a group, by name."""

    name: str
    is_group: bool = False


def read_recipient(body: Any) -> tuple[Recipient, list[str] | None]:
    """Return the recipient and the scopes that a grant or a revocation names.

    Without scopes, or with none of them, that is what is usual.

    Raises:
        InvalidRequestError: It names no recipient, or two, or something else.
    """
    fields = _fields(body, {"user", "group", "scopes"})
    given = [key for key in ("user", "group") if fields.get(key) is not None]
    if len(given) != 1:
        raise InvalidRequestError("The body must name exactly one of user and group")
    [key] = given
    name = fields[key]
    if not isinstance(name, str) or not name:
        raise InvalidRequestError(f"{key} must be a name")
    return Recipient(name, is_group=key == "group"), _scopes(fields)


def read_code_request(body: Any) -> tuple[timedelta, list[str] | None]:
    """Return how long a code is to be good, and the scopes it is to share.

    Raises:
        InvalidRequestError: Something has the wrong type or size.
    """
    fields = _fields(body, {"expires_in", "scopes"})
    seconds = fields.get("expires_in", DEFAULT_CODE_SECONDS)
    if not isinstance(seconds, int) or isinstance(seconds, bool) or seconds not in CODE_SECONDS:
        raise InvalidRequestError(
            f"expires_in must be a whole number of seconds from {CODE_SECONDS[0]} to"
            f" {CODE_SECONDS[-1]}"
        )
    return timedelta(seconds=seconds), _scopes(fields)


def code_number(text: str) -> int | None:
    """Return the number in a code's id (`sc_12`), or None when there can be none of that id."""
    digits = text.removeprefix("sc_")
    if not text.startswith("sc_") or not (digits.isascii() and digits.isdigit()):
        return None
    return int(digits) if len(digits) < 10 else None


def _fields(body: Any, known: set[str]) -> dict[str, Any]:
    body = {} if body is None else body
    if not isinstance(body, dict):
        raise InvalidRequestError("The body must be a JSON object")
    if unknown := body.keys() - known:
        raise InvalidRequestError(f"Unknown key: {min(unknown)[:100]!r}")
    return body


def _scopes(fields: dict[str, Any]) -> list[str] | None:
    value = fields.get("scopes")
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise InvalidRequestError("scopes must be a list of text")
    return value or None

"""Bodies of calls about tokens. Pure."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from carrel_hub.errors import InvalidRequestError
from carrel_hub.rbac import RoleBook

MAX_SECONDS = 100 * 366 * 86400
"""Nothing that is made now is good for longer than a century."""

MOST_SCOPES = 1000
"""Each is looked at whenever it is found out anew what its token may do."""


@dataclass(frozen=True, slots=True)
class WantedToken:
    """What a token is to be; None means that the caller did not say."""

    note: str | None = None
    expires_in: timedelta | None = None
    scopes: list[str] | None = None


def wanted_token(body: Any, roles: RoleBook, longest: int = 0) -> WantedToken:
    """Return what the body of a creation asks for; it may be empty.

    Args:
        roles: Those there are; a token that asks for one gets what it holds now.
        longest: How many seconds it may be good, and is where nothing is said; 0 for no limit.

    Raises:
        InvalidRequestError: Something has the wrong type, there is no such scope or role, or it
            would be good for too long.
    """
    body = {} if body is None else body
    if not isinstance(body, dict):
        raise InvalidRequestError("The body must be a JSON object")
    note = body.get("note")
    if note is not None and not isinstance(note, str):
        raise InvalidRequestError("note must be text")
    lifetime = _lifetime(body.get("expires_in"), longest)
    return WantedToken(note, lifetime, _scopes(body, roles))


def _lifetime(seconds: Any, longest: int) -> timedelta | None:
    if seconds is None:
        return timedelta(seconds=longest) if longest else None
    if not isinstance(seconds, int) or isinstance(seconds, bool):
        raise InvalidRequestError("expires_in must be a whole number of seconds")
    if not 1 <= seconds <= MAX_SECONDS:
        raise InvalidRequestError(f"expires_in must be from 1 to {MAX_SECONDS} seconds")
    if longest and seconds > longest:
        raise InvalidRequestError(f"expires_in must be {longest} seconds at most")
    return timedelta(seconds=seconds)


def _scopes(body: dict[str, Any], book: RoleBook) -> list[str] | None:
    scopes, roles = (_texts(body, key) for key in ("scopes", "roles"))
    if scopes and roles:
        raise InvalidRequestError("scopes and roles cannot both be given")
    if roles is not None and not scopes:
        unknown = [role for role in roles if role not in book]
        if unknown:
            raise InvalidRequestError(f"There is no role {min(unknown)[:100]!r}")
        return list(dict.fromkeys(scope for role in roles for scope in book.scopes(role)))
    if scopes is None:
        return None
    if len(scopes) > MOST_SCOPES:
        raise InvalidRequestError(f"A token has at most {MOST_SCOPES} scopes")
    for text in scopes:
        if text == "all":
            raise InvalidRequestError("There is no scope 'all'; use 'inherit'")
        if not book.knows(text):
            raise InvalidRequestError(f"There is no scope {text[:100]!r}")
    return book.full(scopes)


def _texts(body: dict[str, Any], key: str) -> list[str] | None:
    value = body.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise InvalidRequestError(f"{key} must be a list of text")
    return value

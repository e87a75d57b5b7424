"""Bodies of REST calls, read as leniently as JupyterHub's clients need. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, NoReturn

from pydantic_core import from_json

from carrel_hub.errors import InvalidRequestError
from carrel_hub.spawns.naming import good_display_name, good_server_name


def json_body(raw: bytes) -> Any:
    """Return the JSON in a body; None for an empty one. The content type does not matter.

    Some of it is kept and shown to others, so it must be such that it can be written again: not
    nested deeper than 200, no half of a surrogate pair (RFC 8259 8.2), no number beyond all bounds.

    Raises:
        InvalidRequestError: It is no JSON, or no UTF-8, or such.
    """
    if not raw.strip():
        return None
    try:
        from_json(raw, allow_inf_nan=False)  # refuses the first two; Python's reader takes them
        return json.loads(raw.decode("utf-8"), parse_constant=_no_number, parse_float=_finite)
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise InvalidRequestError("Invalid JSON in body of request") from error


def _no_number(text: str) -> NoReturn:
    """NaN and the infinities: Python reads them, RFC 8259 has no such numbers."""
    raise ValueError(text)


def _finite(text: str) -> float:
    number = float(text)
    return number if isfinite(number) else _no_number(text)


@dataclass(frozen=True, slots=True)
class ServerChanges:
    """What a body says of a server; None leaves it as it is."""

    name: str | None = None
    display_name: str | None = None
    options: dict[str, Any] | None = None


def start_options(body: Any) -> ServerChanges:
    """Return what the body of a start says; without options, those that were given last count.

    An object with neither `display_name` nor `user_options` is the options itself.

    Raises:
        InvalidRequestError: Something has the wrong type.
    """
    if body is None or body == {}:
        return ServerChanges()
    if not isinstance(body, dict):
        raise InvalidRequestError("The body of a start must be a JSON object")
    if "display_name" not in body and "user_options" not in body:
        return ServerChanges(options=body)
    return ServerChanges(display_name=_display_name(body), options=_options(body))


def server_changes(body: Any) -> ServerChanges:
    """Return what the body of a change of a server asks for.

    Raises:
        InvalidRequestError: Nothing, or what no server has.
    """
    if not isinstance(body, dict) or not body:
        raise InvalidRequestError("The body must be an object with what is to change")
    if unknown := body.keys() - {"name", "display_name", "user_options"}:
        raise InvalidRequestError(f"Unknown key in a server: {min(unknown)[:100]!r}")
    if body.get("user_options", {}) is None:
        raise InvalidRequestError("user_options must be an object")
    return ServerChanges(
        name=good_server_name(body["name"]) if body.get("name") is not None else None,
        display_name=_display_name(body) if body.get("display_name") is not None else None,
        options=_options(body),
    )


def _display_name(body: dict[str, Any]) -> str | None:
    """An empty one is none, as in JupyterHub's own pages."""
    given = body.get("display_name", "")
    return None if given == "" else good_display_name(given)


def _options(body: dict[str, Any]) -> dict[str, Any] | None:
    options = body.get("user_options")
    if options is not None and not isinstance(options, dict):
        raise InvalidRequestError("user_options must be an object or null")
    return options


def wants_removal(body: Any) -> bool:
    """Return whether the body of a stop asks to remove the server's record too.

    Raises:
        InvalidRequestError: It is no object.
    """
    if body is None:
        return False
    if not isinstance(body, dict):
        raise InvalidRequestError("The body of a stop must be a JSON object")
    return bool(body.get("remove", False))


@dataclass(frozen=True, slots=True)
class UserChanges:
    """What a user model in a request asks for; None leaves it as it is."""

    name: str | None = None
    admin: bool | None = None


_USER_KEYS: dict[str, tuple[type, str]] = {
    "name": (str, "text"),
    "admin": (bool, "true or false"),
    "groups": (list, "a list"),
    "roles": (list, "a list"),
    "auth_state": (dict, "an object"),
}


def user_changes(body: Any) -> UserChanges:
    """Return what the body with a user model asks for. Groups and roles are changed elsewhere.

    Raises:
        InvalidRequestError: It is no object, or has keys or types that no user has.
    """
    if not isinstance(body, dict):
        raise InvalidRequestError("The body must be a JSON object")
    for key, value in body.items():
        if key not in _USER_KEYS:
            raise InvalidRequestError(f"Unknown key in a user: {str(key)[:100]!r}")
        wanted, words = _USER_KEYS[key]
        if not isinstance(value, wanted):
            raise InvalidRequestError(f"{key} must be {words}")
    if body.get("auth_state"):
        raise InvalidRequestError("auth_state cannot be stored: no authenticator here uses it")
    return UserChanges(name=body.get("name"), admin=body.get("admin"))


def new_users(body: Any) -> tuple[list[Any], bool]:
    """Return the names in the body of a creation, and whether they become administrators.

    Raises:
        InvalidRequestError: There are none, or something has the wrong type.
    """
    if not isinstance(body, dict) or body.keys() - {"usernames", "admin"}:
        raise InvalidRequestError("The body must be an object with usernames, and admin if need be")
    names, admin = body.get("usernames"), body.get("admin", False)
    if not isinstance(names, list) or not names:
        raise InvalidRequestError("usernames must be a list of at least one name")
    if not isinstance(admin, bool):
        raise InvalidRequestError("admin must be true or false")
    return names, admin


def wants_stopped(query: Mapping[str, str]) -> bool:
    """Return whether a query asks for stopped servers too."""
    value = query.get("include_stopped_servers")
    return value is not None and value.lower() not in ("0", "false")

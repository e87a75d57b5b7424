"""Bodies of calls about groups. Pure."""

from typing import Any

from carrel_hub.errors import InvalidRequestError

MAX_NAME = 255
MOST_NAMES = 10_000
"""In one call. A statement has 32,766 values at most, with either database."""


def good_group_name(raw: Any) -> str:
    """Return a name for a group.

    Raises:
        InvalidRequestError: It is no text, empty, too long, or holds what no address can.
    """
    if not isinstance(raw, str) or not raw.strip() or raw != raw.strip():
        raise InvalidRequestError("Invalid group name: it must be text without space around it")
    if len(raw) > MAX_NAME or not raw.isprintable() or "/" in raw or not raw.strip("."):
        raise InvalidRequestError(
            f"Invalid group name: at most {MAX_NAME} characters, no slash, not only dots"
        )
    return raw


def new_groups(body: Any) -> tuple[list[str], list[str]]:
    """Return the names of the groups to be made, each once, and of the users in all of them.

    Raises:
        InvalidRequestError: None is named, or something has the wrong type.
    """
    if not isinstance(body, dict) or body.keys() - {"groups", "users"}:
        raise InvalidRequestError("The body must be an object with groups, and users if need be")
    groups = body.get("groups")
    if not isinstance(groups, list) or not groups:
        raise InvalidRequestError("groups must be a list of at least one name")
    names = list(dict.fromkeys(good_group_name(name) for name in groups))
    return _not_too_many("groups", names), _names(body)


def new_members(body: Any) -> list[str]:
    """Return the users of a group that is made; the body may be empty.

    Raises:
        InvalidRequestError: Something has the wrong type.
    """
    body = {} if body is None else body
    if not isinstance(body, dict) or body.keys() - {"users", "name", "properties", "roles"}:
        raise InvalidRequestError("The body must be an object with users")
    if not isinstance(body.get("name", ""), str):
        raise InvalidRequestError("name must be text")
    return _names(body)


def named_members(body: Any) -> list[str]:
    """Return the users who are to join or leave a group.

    Raises:
        InvalidRequestError: They are missing.
    """
    if not isinstance(body, dict) or "users" not in body:
        raise InvalidRequestError("The body must be an object with users")
    return _names(body)


def new_properties(body: Any) -> dict[str, Any]:
    """Return the properties of a group.

    Raises:
        InvalidRequestError: They are no object.
    """
    if not isinstance(body, dict):
        raise InvalidRequestError("The properties must be a JSON object")
    return body


def _names(body: dict[str, Any]) -> list[str]:
    names = body.get("users", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InvalidRequestError("users must be a list of names")
    return _not_too_many("users", names)


def _not_too_many(key: str, names: list[str]) -> list[str]:
    if len(names) > MOST_NAMES:
        raise InvalidRequestError(f"{key} must be a list of at most {MOST_NAMES} names")
    return names

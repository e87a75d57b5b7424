"""Bodies of REST calls, read as leniently as JupyterHub's clients need. Pure."""

import json
from typing import Any

from carrel_hub.errors import InvalidRequestError


def json_body(raw: bytes) -> Any:
    """Return the JSON in a body; None for an empty one. The content type does not matter.

    Raises:
        InvalidRequestError: It is no JSON, or no UTF-8.
    """
    if not raw.strip():
        return None
    try:
        return json.loads(raw.decode("utf-8"))
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise InvalidRequestError("Invalid JSON in body of request") from error


def start_options(body: Any) -> dict[str, Any] | None:
    """Return the user options in the body of a start; None keeps what was given last.

    An object with neither `display_name` nor `user_options` is the options itself.

    Raises:
        InvalidRequestError: Something has the wrong type.
    """
    if body is None or body == {}:
        return None
    if not isinstance(body, dict):
        raise InvalidRequestError("The body of a start must be a JSON object")
    if "display_name" not in body and "user_options" not in body:
        return body
    if not isinstance(body.get("display_name", ""), str):
        raise InvalidRequestError("display_name must be a string")
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

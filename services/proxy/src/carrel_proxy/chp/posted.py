"""What is posted to the REST API: JSON that can be kept as it is and shown again. Pure."""

import json
import math
from typing import Any

MOST_BYTES = 1024 * 1024
"""A route is a few hundred bytes; in memory JSON takes up to thirty times its length."""
DEEPEST = 100
"""Objects and lists in each other. What is nested deeper could be read here and not be written."""


class PostedError(ValueError):
    """It is no route; the text says why."""


def read_route(body: bytes) -> dict[str, Any]:
    """Return the object that was posted. It has a string as `target`; the rest is the caller's.

    Raises:
        PostedError: If it is none.
    """
    try:
        data = json.loads(body.decode("utf-8"), parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError):
        raise PostedError("the body is no JSON") from None
    if not isinstance(data, dict) or not isinstance(data.get("target"), str):
        raise PostedError("the body is an object with a string as target")
    if _is_deep(data):
        raise PostedError(f"the body is nested more than {DEEPEST} deep")
    return data


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number that JSON cannot show")
    return number


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEEPEST):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return False
    return True


def _inside(value: Any) -> list[Any]:
    """Return what in an object or a list may have something in it."""
    found = value.values() if isinstance(value, dict) else value
    return [one for one in found if isinstance(one, dict | list)]

"""Regular expressions, as settings have them."""

import re
from typing import Annotated

from pydantic import AfterValidator


def _compiles(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"{value!r} is no regular expression: {error}") from error
    return value


Expression = Annotated[str, AfterValidator(_compiles)]
"""A text that `re` takes."""

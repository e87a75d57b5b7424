"""Reading the `Authorization` header. Pure."""

import re

from carrel_hub.auth.digest import MAX_SECRET_LENGTH

_HEADER = re.compile(r"(?:token|bearer)[ \t]+(?P<token>\S+)[ \t]*", re.IGNORECASE)


def authorization_token(header: str | None) -> str | None:
    """Return the token in `Authorization: token X` or `Bearer X`.

    The whole header must be that; anything else (`token: X`, Basic, two values) is no token of
    ours and belongs to somebody else.
    """
    match = _HEADER.fullmatch(header.strip()) if header else None
    if match is None or len(match["token"]) > MAX_SECRET_LENGTH:
        return None
    return match["token"]

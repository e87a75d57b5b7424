"""Where a browser goes on after signing in: only ever to a place of ours. Pure."""

import re
from urllib.parse import urlsplit

_CONTROL = re.compile(r"[\x00-\x20\x7f-\x9f]")


def safe_next(raw: str | None, *, scheme: str, host: str) -> str | None:
    """Return the part of a `next` address that may be gone to, or None for no such part.

    Args:
        raw: As the request said it.
        scheme: Of our own address, as the browser knows it.
        host: Of our own address, with its port.

    Returns:
        A path with query and fragment, beginning with exactly one slash, that a browser can only
        take as one of ours: no other host, no backslash, no control character or space.
    """
    if not raw or len(raw) > 8192:
        return None
    text = raw.replace("\\", "%5C")
    if _CONTROL.search(text):
        return None
    text = re.sub(r"^/{3,}", "//", text)
    for own in (f"{scheme}://{host}/", f"//{host}/"):
        if host and text.startswith(own):
            text = "/" + text[len(own) :].lstrip("/")
            break
    try:
        parts = urlsplit(text)
    except ValueError:
        return None
    if parts.scheme or parts.netloc or not text.startswith("/") or text.startswith("//"):
        return None
    return text

"""Where a browser goes on after signing in: only ever to a place of ours. Pure."""

import re
from urllib.parse import urlsplit

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def safe_next(raw: str | None, *, scheme: str, host: str) -> str | None:
    """Return the part of a `next` address that may be gone to, or None for no such part.

    Args:
        raw: As the request said it.
        scheme: Of our own address, as the browser knows it.
        host: Of our own address, with its port.

    Returns:
        A path with query and fragment, beginning with exactly one slash, that a browser can only
        take as one of ours: no other host, no backslash, no control character. What browsers would
        leave off or escape is: spaces around it, and in it.
    """
    if not raw or len(raw) > 8192:
        return None
    if _CONTROL.search(raw):
        return None
    text = raw.strip(" ").replace("\\", "%5C").replace(" ", "%20")
    text = re.sub(r"^/{3,}", "//", text)
    if host and text == f"{scheme}://{host}":
        return "/"
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

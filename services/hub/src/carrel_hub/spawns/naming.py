"""Names that people give to servers (contract 1.1). Pure."""

import re
import unicodedata

from carrel_hub.errors import InvalidRequestError

MAX_NAME = 30
MAX_DISPLAY_NAME = 255
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_PRINTABLE = frozenset("LMNPS")


def good_server_name(raw: object) -> str:
    """Return a name that a server may be given.

    Raises:
        InvalidRequestError: It is none.
    """
    if not isinstance(raw, str) or len(raw) > MAX_NAME or not _NAME.fullmatch(raw):
        raise InvalidRequestError(
            f"Invalid server name: 1 to {MAX_NAME} lower-case letters and digits, with single"
            " hyphens between them, a letter first"
        )
    return raw


def good_display_name(raw: object) -> str:
    """Return what people may call a server, composed (NFC).

    Raises:
        InvalidRequestError: It is no text, empty, too long, or not printable.
    """
    if not isinstance(raw, str):
        raise InvalidRequestError("display_name must be text")
    name = unicodedata.normalize("NFC", raw)
    fine = all(char == " " or unicodedata.category(char)[0] in _PRINTABLE for char in name)
    if not 1 <= len(name) <= MAX_DISPLAY_NAME or not fine or name != name.strip() or "  " in name:
        raise InvalidRequestError(
            f"Invalid display name: 1 to {MAX_DISPLAY_NAME} printable characters, with single"
            " spaces between words"
        )
    return name

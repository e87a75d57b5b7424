"""User names, brought to their one spelling where they come in. Pure."""

import unicodedata

MAX_NAME = 128


class InvalidNameError(ValueError):
    """A text that cannot be a user's name; the message says why."""


def normalise_name(raw: str) -> str:
    """Return the one spelling of a user's name: composed, lower case, no space around it.

    Doing it twice changes nothing, so one person cannot be two users by writing a name otherwise.

    Raises:
        InvalidNameError: It is empty, too long, only dots, or holds a slash of either kind or a
            control character.
    """
    if len(raw) > MAX_NAME:
        raise InvalidNameError(f"a user name has at most {MAX_NAME} characters")
    name = raw.strip()
    while (smaller := unicodedata.normalize("NFC", name.lower()).strip()) != name:
        name = smaller
    if len(name) > MAX_NAME:
        raise InvalidNameError(f"a user name has at most {MAX_NAME} characters")
    if not name:
        raise InvalidNameError("a user name is needed")
    if not name.isprintable():
        raise InvalidNameError("a user name has no control characters")
    if "/" in name or "\\" in name or not name.strip("."):
        raise InvalidNameError("a user name has no slash, no backslash, and is not only dots")
    return name

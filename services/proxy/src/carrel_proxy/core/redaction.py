"""What of a request may stand in a log: nothing that opens anything, nothing that forges a line.

Addresses carry secrets in many places: `?token=`, OAuth's `code` and `state`, `_xsrf`, sign-in
links, passwords before an `@`, and all of these again, encoded, in a `next=`. Whatever is named
like a secret or looks like one is left out; to leave out too much harms nobody. Pure.
"""

import re
from urllib.parse import unquote_to_bytes

HIDDEN = b"[hidden]"

_WORDS = re.compile(
    rb"token|auth|key|code|state|xsrf|csrf|secret|passw|pwd|session|sig|ticket|jwt|credential"
    rb"|assertion|saml|nonce|otp|cookie",
    re.IGNORECASE,
)
_NAMED = re.compile(rb"(?:" + _WORDS.pattern + rb")[^=&;/?]{0,64}[=:]", re.IGNORECASE)
_PART = re.compile(rb"([?&;#])([^=&;#]*)(=?)([^&;#]*)")
_RUN = re.compile(rb"[A-Za-z0-9_+\-]{20,}")
_LONG_RUN = re.compile(rb"[A-Za-z0-9_+\-=]{32,}")
_UUID = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_USER_INFO = re.compile(rb"^([A-Za-z][A-Za-z0-9+.\-]*:)?//[^/?#]*@")
_PASSWORD = re.compile(rb"//[^/?#@:]*+:[^/?#@]*+@")
_ONE_TIME = frozenset(
    (
        *(b"sign-in", b"accept-share", b"signup", b"confirm", b"reset"),
        *(b"activate", b"invite", b"token", b"verify"),
    )
)
"""Path segments after which a secret may stand."""
_ROUNDS = 5
_MOST_READ = 4096
"""Bytes that are looked at; what comes after them is not shown."""

_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0x100), 0x22, 0x5C)}


def shown(value: bytes, most: int) -> str:
    """Return bytes as printable ASCII, without their own quotes and backslashes, cut at `most`."""
    text = value[:most].decode("latin-1").translate(_ESCAPES)
    return text if len(value) <= most else text + "..."


def shown_address(address: bytes, most: int) -> str:
    """Return a request's target, or a whole URL, without what could be secret in it."""
    address = _USER_INFO.sub(rb"\1//" + HIDDEN + b"@", address[:_MOST_READ])
    end = min((at for mark in b"?#;" if (at := address.find(mark)) >= 0), default=len(address))
    path, rest = address[:end], address[end:]
    return shown(_path(path) + _PART.sub(_pair, rest), most)


def _path(path: bytes) -> bytes:
    segments = path.split(b"/")
    for index, segment in enumerate(segments):
        after_one_time = index > 0 and segments[index - 1].lower() in _ONE_TIME
        if segment and (after_one_time or _is_secret_segment(segment)):
            segments[index] = HIDDEN
    return b"/".join(segments)


def _is_secret_segment(segment: bytes) -> bool:
    plain = _decoded(segment)
    if plain is None or _NAMED.search(plain):
        return True
    if _UUID.fullmatch(plain):
        return False  # kernels and sessions are named so
    return any(_is_mixed(found) for found in _LONG_RUN.findall(plain))


def _pair(match: re.Match[bytes]) -> bytes:
    mark, name, equals, value = match.groups()
    if not equals:
        return mark + (HIDDEN if _is_secret_value(name) else name)
    plain_name = _decoded(name)
    if plain_name is None or _RUN.search(plain_name):
        return mark + HIDDEN
    if _WORDS.search(plain_name) or _is_secret_value(value):
        return mark + name + equals + HIDDEN
    return match.group()


def _is_secret_value(value: bytes) -> bool:
    plain = _decoded(value)
    if plain is None or _NAMED.search(plain) or _PASSWORD.search(plain):
        return True
    if any(segment in _ONE_TIME for segment in plain.lower().split(b"/")):
        return True
    return any(_has_digit(found) for found in _RUN.findall(plain))


def _decoded(value: bytes) -> bytes | None:
    """Undo percent-encoding, however often it was done; None if that does not end soon."""
    for _ in range(_ROUNDS):
        plain = unquote_to_bytes(value)
        if plain == value:
            return plain
        value = plain
    return None


def _has_digit(run: bytes) -> bool:
    return any(0x30 <= code <= 0x39 for code in run)


def _is_mixed(run: bytes) -> bool:
    return _has_digit(run) and run.lower() != run and run.upper() != run

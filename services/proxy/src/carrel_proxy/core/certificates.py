"""The names in a certificate, read from its DER encoding (X.690, RFC 5280 4.2.1.6). Pure.

The standard library decodes certificates only of peers, and reading one field is no reason for a
library. What cannot be read has no names.
"""

from collections.abc import Iterator

_SEQUENCE = 0x30
_EXTENSIONS = 0xA3
_OBJECT_ID = 0x06
_OCTETS = 0x04
_DNS_NAME = 0x82
_ALTERNATIVE_NAMES = bytes.fromhex("551d11")


def dns_names(certificate: bytes) -> list[str]:
    """Return the host names a certificate is for, in lower case; `*.x` stands for one label.

    Args:
        certificate: DER.
    """
    try:
        return [
            value.decode("ascii").lower().rstrip(".")
            for tag, value in _alternative_names(certificate)
            if tag == _DNS_NAME
        ]
    except (ValueError, IndexError, StopIteration):
        return []


def _alternative_names(certificate: bytes) -> Iterator[tuple[int, bytes]]:
    (_, whole), *_rest = _items(certificate)
    (_, signed), *_rest = _items(whole)
    extensions = next(value for tag, value in _items(signed) if tag == _EXTENSIONS)
    (_, listed), *_rest = _items(extensions)
    for tag, extension in _items(listed):
        parts = list(_items(extension)) if tag == _SEQUENCE else []
        if parts and parts[0] == (_OBJECT_ID, _ALTERNATIVE_NAMES) and parts[-1][0] == _OCTETS:
            (_, names), *_rest = _items(parts[-1][1])
            return _items(names)
    return iter(())


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Return tag and content of each element."""
    at = 0
    while at < len(data):
        tag, length = data[at], data[at + 1]
        at += 2
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(data[at : at + size], "big")
            at += size
        if at + length > len(data):
            raise ValueError("an element ends after its container")
        yield tag, data[at : at + length]
        at += length


def fits(pattern: str, host: str) -> bool:
    """Whether a certificate's name covers a host (RFC 9525 6.3): `*` is one whole label."""
    if pattern.startswith("*."):
        label, dot, rest = host.partition(".")
        return bool(label and dot) and rest == pattern[2:]
    return pattern == host

"""What the database holds of the authority's keys: AES-GCM under a key of the hubs' signing key.

Whoever reads the database, a dump of it, or its traffic, learns nothing by it that signs.
"""

import base64
import json
import os
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from carrel_hub.auth.signing import Signer

_FORMAT, _SALT_BYTES, _NONCE_BYTES, _KEY_BYTES = b"\x01", 16, 12, 32
_PURPOSE = b"carrel fleet authority"


class UnsealError(Exception):
    """This is sealed with another key, or was changed."""


@dataclass(frozen=True, slots=True)
class AuthorityKeys:
    """All there is of an authority.

    Attributes:
        certificate: PEM.
        private: The key that belongs to it, PEM.
        hosts: From which the keys of hosts and hubs are derived.
    """

    certificate: str
    private: bytes = field(repr=False)
    hosts: bytes = field(repr=False)


def seal(signer: Signer, keys: AuthorityKeys) -> str:
    """Return the private parts as text that only who has the same signing key can read."""
    salt, nonce = os.urandom(_SALT_BYTES), os.urandom(_NONCE_BYTES)
    plain = json.dumps({"private": keys.private.decode(), "hosts": keys.hosts.hex()}).encode()
    sealed = _cipher(signer, salt).encrypt(nonce, plain, keys.certificate.encode())
    return base64.b64encode(_FORMAT + salt + nonce + sealed).decode()


def unseal(signer: Signer, certificate: str, sealed: str) -> AuthorityKeys:
    """Return what was sealed together with this certificate.

    Raises:
        UnsealError: It was with another, by another signing key, or was changed since.
    """
    try:
        raw = base64.b64decode(sealed, validate=True)
        salt, rest = raw[1 : 1 + _SALT_BYTES], raw[1 + _SALT_BYTES :]
        nonce, sealed_part = rest[:_NONCE_BYTES], rest[_NONCE_BYTES:]
        if raw[:1] != _FORMAT:
            raise UnsealError("unknown format")
        plain = _cipher(signer, salt).decrypt(nonce, sealed_part, certificate.encode())
        found = json.loads(plain)
        return AuthorityKeys(certificate, found["private"].encode(), bytes.fromhex(found["hosts"]))
    except (InvalidTag, ValueError, KeyError) as error:
        raise UnsealError("sealed with another key, or changed") from error


def _cipher(signer: Signer, salt: bytes) -> AESGCM:
    derivation = HKDF(algorithm=hashes.SHA256(), length=_KEY_BYTES, salt=salt, info=_PURPOSE)
    return AESGCM(derivation.derive(signer.key))

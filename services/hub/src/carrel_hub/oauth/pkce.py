"""Proof that whoever redeems a code is who asked for it (RFC 7636). Pure."""

import base64
import hashlib
import hmac
import re

S256, PLAIN = "S256", "plain"

_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")


def challenge_of(verifier: str) -> str:
    """Return the challenge that belongs to a verifier (RFC 7636 4.2)."""
    raw = hashlib.sha256(verifier.encode("ascii")).digest()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def proves(verifier: str, challenge: str, method: str = S256) -> bool:
    """Whether a verifier is the one that a challenge was made of (RFC 7636 4.6)."""
    if not _VERIFIER.fullmatch(verifier):
        return False
    made = verifier if method == PLAIN else challenge_of(verifier)
    return hmac.compare_digest(made.encode(), challenge.encode())

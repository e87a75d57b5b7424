"""Secrets that are random enough are stored and compared as SHA-256 only."""

import hashlib
import secrets

MAX_SECRET_LENGTH = 64
"""Longer texts are no secret of ours and are not even hashed."""


def digest(secret: str) -> str:
    """Return the SHA-256 (hex) of a random secret. Not for passwords, which are guessable."""
    return hashlib.sha256(secret.encode()).hexdigest()


def new_secret() -> str:
    """Return 256 random bits, safe in URLs, headers and cookies (43 characters)."""
    return secrets.token_urlsafe(32)

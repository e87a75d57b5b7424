"""The hub's signing key. What it signed, only the hub can have made."""

import base64
import contextlib
import functools
import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path

from carrel_shared.files import write_atomically

KEY_FILE, FORMER_FILE = "cookie.key", "cookie.key.former"
KEY_BYTES = 32


class SigningKeyError(Exception):
    """The key file cannot be used; the message says why and what to do."""


class Signer:
    """Signs short texts for a purpose; a signature for one purpose is worth nothing for another."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise SigningKeyError(f"a signing key has {KEY_BYTES} bytes, not {len(key)}")
        self._key = key

    @property
    def key(self) -> bytes:
        """The key itself, from which others are derived."""
        return self._key

    @classmethod
    def load(cls, state_dir: Path) -> "Signer":
        """Read the key from `state_dir`, making it the first time, readable by the hub alone.

        Raises:
            SigningKeyError: If it cannot be read or written, is damaged, or others can read it.
        """
        path = state_dir / KEY_FILE
        try:
            if not path.exists():
                write_atomically(path, secrets.token_bytes(KEY_BYTES), mode=0o600)
            status = path.stat()
            if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
                raise SigningKeyError(
                    f"{path}: others may have read the signing key; rename it to {FORMER_FILE}"
                    " (everybody then signs in again) and start the hub anew"
                )
            key = path.read_bytes()
        except OSError as error:
            raise SigningKeyError(f"{path}: {error.strerror}") from error
        if len(key) != KEY_BYTES:
            raise SigningKeyError(
                f"{path}: damaged; remove it (everybody then signs in again) and start the hub anew"
            )
        return cls(key)

    def mac(self, purpose: str, *parts: str) -> str:
        """Return a signature (43 characters) over the parts, which cannot run into each other."""
        message = b"".join(
            b"%d:%s," % (len(part), part) for part in (p.encode() for p in (purpose, *parts))
        )
        raw = hmac.digest(self._key, message, hashlib.sha256)
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    def sign(self, purpose: str, value: str) -> str:
        """Return `value.signature`. `value` must not be empty nor hold a dot."""
        return f"{value}.{self.mac(purpose, value)}"

    def verify(self, purpose: str, text: str) -> str | None:
        """Return the value out of what `sign` made, or None if it did not make this."""
        value, _, signature = text.rpartition(".")
        if not value or not hmac.compare_digest(
            signature.encode(), self.mac(purpose, value).encode()
        ):
            return None
        return value


def set_signing_key(state_dir: Path, text: str) -> None:
    """Sign by a key from the settings from now on: `text` in any length, of high entropy.

    Raises:
        SigningKeyError: It cannot be written.
    """
    path, key = state_dir / KEY_FILE, _key_of(text)
    try:
        if path.exists() and path.read_bytes() != key:
            path.rename(state_dir / FORMER_FILE)
        if not path.exists():
            write_atomically(path, key, mode=0o600)
    except OSError as error:
        raise SigningKeyError(f"{path}: {error.strerror}") from error


def _key_of(text: str) -> bytes:
    return hashlib.sha256(b"carrel signing key:" + text.encode()).digest()


def former_signers(state_dir: Path, text: str | None) -> list[Signer]:
    """Return the signers of before: of a key from the settings, and of the one that was replaced.

    Raises:
        SigningKeyError: The file cannot be read.
    """
    found = [] if text is None else [Signer(_key_of(text))]
    path = state_dir / FORMER_FILE
    try:
        if path.exists() and len(key := path.read_bytes()) == KEY_BYTES:
            found.append(Signer(key))
    except OSError as error:
        raise SigningKeyError(f"{path}: {error.strerror}") from error
    return found


def forget_former(state_dir: Path) -> None:
    """Remove the key that was replaced, once nothing needs it any more."""
    with contextlib.suppress(OSError):
        (state_dir / FORMER_FILE).unlink(missing_ok=True)


@functools.cache
def signer_for(state_dir: Path) -> Signer:
    """Return the signer of a state directory, read once a process.

    Raises:
        SigningKeyError: See `Signer.load`.
    """
    return Signer.load(state_dir)

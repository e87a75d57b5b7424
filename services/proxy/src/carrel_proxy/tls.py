"""TLS of the public side: what is spoken, and which certificate is shown to whom.

A client names the host it wants (SNI, RFC 6066); the certificate that covers that name is shown,
and the first one to whoever names none or another.
"""

import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from carrel_proxy.core.certificates import dns_names, fits

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)

# For TLS 1.2; those of 1.3 are all good. Forward secrecy and authenticated encryption only.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


class TlsError(Exception):
    """A certificate or its key cannot be used; the message says which and why."""


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """One certificate.

    Attributes:
        cert: PEM file with the certificate and its chain.
        key: PEM file with its key.
        passphrase: Opens the key; None for a key that is not encrypted.
    """

    cert: Path
    key: Path
    passphrase: str | None = field(default=None, repr=False)


def public_context(
    certificates: Sequence[CertificateFiles],
    *,
    ciphers: str | None = None,
    client_ca: Path | None = None,
    client_certificates: ssl.VerifyMode = ssl.CERT_NONE,
) -> ssl.SSLContext:
    """Return what the public side speaks TLS with.

    Args:
        certificates: At least one; the first is shown where no other fits better.
        ciphers: For TLS 1.2, in OpenSSL's words; None for a safe choice.
        client_ca: Who vouches for clients' certificates.
        client_certificates: Whether clients are asked for one.

    Raises:
        TlsError: If a file cannot be used.
    """
    contexts = [_context(files, ciphers) for files in certificates]
    for context in contexts:
        if client_ca is not None:
            _trust(context, client_ca)
        context.verify_mode = client_certificates
    first = contexts[0]
    if len(contexts) > 1:
        names = [
            (_names(files.cert), context)
            for files, context in zip(certificates, contexts, strict=True)
        ]

        def choose(tls: ssl.SSLObject, host: str | None, _shown: ssl.SSLContext) -> None:
            tls.context = _fitting(names, host) or first

        first.sni_callback = choose
    return first


def _context(files: CertificateFiles, ciphers: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.set_ciphers(ciphers or _CIPHERS)
    except ssl.SSLError as error:
        raise TlsError(f"there are no such ciphers as {ciphers!r}") from error

    def passphrase() -> str:
        return files.passphrase if files.passphrase is not None else _no_passphrase(files.key)

    for path in (files.cert, files.key):
        _check_readable(path)
    try:
        context.load_cert_chain(files.cert, files.key, password=passphrase)
    except (OSError, ssl.SSLError) as error:
        what = "no matching pair of PEM files, or the passphrase is wrong"
        raise TlsError(f"{files.cert} and {files.key} cannot be used: {what}") from error
    return context


def _check_readable(path: Path) -> None:
    try:
        path.read_bytes()
    except OSError as error:
        raise TlsError(f"{path} cannot be used: {error.strerror}") from error


def _no_passphrase(key: Path) -> NoReturn:
    raise TlsError(f"{key} is encrypted, and there is no passphrase to open it with")


def _trust(context: ssl.SSLContext, authority: Path) -> None:
    try:
        context.load_verify_locations(authority)
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror if not isinstance(error, ssl.SSLError) else "no certificate"
        raise TlsError(f"{authority} cannot be used: {reason}") from error


def _names(path: Path) -> list[str]:
    """Return the names of the first certificate in a file, which is the one that is shown."""
    found = _PEM.search(path.read_text(encoding="ascii", errors="replace"))
    return dns_names(ssl.PEM_cert_to_DER_cert(found.group())) if found else []


def _fitting(
    certificates: Sequence[tuple[list[str], ssl.SSLContext]], host: str | None
) -> ssl.SSLContext | None:
    """Return the certificate for a host: one that names it before one with a `*` for it."""
    wanted = (host or "").lower().rstrip(".")
    for exact in (True, False):
        for names, context in certificates:
            if any(fits(name, wanted) and (name == wanted) is exact for name in names):
                return context
    return None

"""Keys and certificates of whoever is under the hub's authority. The key is made by its holder."""

import hashlib
import ssl
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made, and what asks for its certificate, both PEM."""

    private: bytes
    request: str

    def __repr__(self) -> str:
        return "NewKey()"


def new_key_pair() -> NewKey:
    """Make a key and a signing request for it. Whose it is, is for the authority to say."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "carrel")])
    asked = x509.CertificateSigningRequestBuilder().subject_name(subject)
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return NewKey(private, asked.sign(key, hashes.SHA256()).public_bytes(pem).decode())


def fingerprint(pem: str) -> str:
    """Return the SHA-256 (hex) of a certificate.

    Raises:
        ValueError: It is none.
    """
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()


def past_half_life(path: Path, now: datetime) -> bool:
    """Whether the certificate in a file is to be renewed.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no certificate.
    """
    found = x509.load_pem_x509_certificate(path.read_bytes())
    begins, ends = found.not_valid_before_utc, found.not_valid_after_utc
    return now > begins + (ends - begins) / 2

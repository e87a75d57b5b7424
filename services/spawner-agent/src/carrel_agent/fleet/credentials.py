"""The host's key and certificate. The key is made here and never leaves."""

import hashlib
import os
import ssl
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from carrel_shared.files import write_atomically
from carrel_shared.fleet import FleetFiles, identity_of


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made, and what asks for its certificate, both PEM."""

    private: bytes
    request: str

    def __repr__(self) -> str:
        return "NewKey()"


def new_key_pair() -> NewKey:
    """Make a key and a signing request for it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "carrel host")])
    asked = x509.CertificateSigningRequestBuilder().subject_name(subject)
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return NewKey(private, asked.sign(key, hashes.SHA256()).public_bytes(pem).decode())


def store(
    files: FleetFiles, key: NewKey, certificate: str, authority: str, group: int | None
) -> None:
    """Write the credentials, for their owner and the relay's group alone.

    Raises:
        OSError: They cannot be written.
    """
    directory = files.cert.parent
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomically(files.ca, authority.encode(), mode=0o600)
    write_atomically(files.cert, certificate.encode() + key.private, mode=0o600)
    if group is not None and os.geteuid() == 0:
        for path, mode in ((directory, 0o750), (files.ca, 0o640), (files.cert, 0o640)):
            os.chown(path, 0, group)
            path.chmod(mode)


def fingerprint(pem: str) -> str:
    """Return the SHA-256 (hex) of a certificate.

    Raises:
        ValueError: It is none.
    """
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()


def identity_in(path: Path) -> str:
    """Return who the certificate in a file says its holder is.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no certificate.
    """
    found = x509.load_pem_x509_certificate(path.read_bytes())
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return identity_of({"subjectAltName": [("URI", uri) for uri in uris]})


def past_half_life(path: Path, now: datetime) -> bool:
    """Whether the certificate in a file is to be renewed.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no certificate.
    """
    found = x509.load_pem_x509_certificate(path.read_bytes())
    begins, ends = found.not_valid_before_utc, found.not_valid_after_utc
    return now > begins + (ends - begins) / 2

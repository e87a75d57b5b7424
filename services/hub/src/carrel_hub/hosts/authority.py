"""The hubs' own certificate authority: known to every host by its fingerprint.

The database holds it, for all hubs on it alike (`hosts.fleet`), and so does every backup.
"""

import secrets
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from carrel_hub.auth.signing import KEY_BYTES, Signer, SigningKeyError
from carrel_hub.errors import InvalidRequestError
from carrel_hub.hosts.opened import AuthorityError
from carrel_hub.hosts.sealing import AuthorityKeys
from carrel_shared.files import write_atomically
from carrel_shared.fleet import EDGE_IDENTITY, HUB_IDENTITY, HUB_NAME, host_identity, host_name

CERTIFICATE_DAYS = 7.0
"""How long hosts', hubs' and edges' certificates are good; each is renewed at half its life."""

_AUTHORITY_DAYS = 3650
_BACKDATED = timedelta(minutes=5)
"""Clocks differ a little; a certificate is good at once on all of them."""


class Authority:
    """Signs certificates, and derives the keys that hub and hosts show each other.

    Attributes:
        certificate: Of the authority itself, as PEM.
    """

    def __init__(self, keys: AuthorityKeys) -> None:
        """Take the keys of one.

        Raises:
            AuthorityError: They are damaged, or do not belong together.
        """
        try:
            key = serialization.load_pem_private_key(keys.private, password=None)
            self._x509 = x509.load_pem_x509_certificate(keys.certificate.encode())
            self._keys = Signer(keys.hosts)
        except (ValueError, TypeError, SigningKeyError) as error:
            raise AuthorityError(f"damaged ({error})") from error
        if self._x509.public_key() != key.public_key():
            raise AuthorityError("the key is not that of the certificate")
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise AuthorityError("the key is of an unknown kind")
        self._key = key
        self.certificate = keys.certificate

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the certificate, by which a host that joins knows it."""
        return self._x509.fingerprint(hashes.SHA256()).hex()

    def hub_key(self, host: str, number: int) -> str:
        """Return what the hub shows the agent of a host, with its credentials of this number."""
        return self._keys.mac("hub to agent", host, str(number))

    def agent_key(self, host: str, number: int) -> str:
        """Return what that agent shows the hub."""
        return self._keys.mac("agent to hub", host, str(number))

    def has_signed(self, pem: bytes) -> bool:
        """Whether a certificate (PEM) is of this authority."""
        try:
            x509.load_pem_x509_certificate(pem).verify_directly_issued_by(self._x509)
        except (ValueError, TypeError, InvalidSignature):
            return False
        return True

    def sign_host(self, request: str, host: str, now: datetime) -> str:
        """Return a host's certificate for its signing request. The request says nothing but a key.

        Raises:
            InvalidRequestError: It is no such request, or its key is of another kind.
        """
        names = (host_identity(host),), (host_name(host),)
        return self._sign(_key_of(request), host, *names, now).decode()

    def sign_edge(self, request: str, name: str, now: datetime) -> str:
        """Return the certificate of an edge on another machine.

        Raises:
            InvalidRequestError: It is no such request, or its key is of another kind.
        """
        return self._sign(_key_of(request), name, (EDGE_IDENTITY,), (), now).decode()

    def sign_own(self, directory: Path, name: str, now: datetime) -> None:
        """Write `NAME.pem` and `NAME.key`, for `hub` or `edge`, with a new key.

        Raises:
            OSError: They cannot be written.
        """
        uri, names = {"hub": (HUB_IDENTITY, (HUB_NAME,)), "edge": (EDGE_IDENTITY, ())}[name]
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(key.public_key(), name, (uri,), names, now)
        # One file for both, so that nobody ever reads a key and another one's certificate.
        write_atomically(directory / f"{name}.pem", certificate + _private(key), mode=0o600)

    def _sign(
        self,
        key: ec.EllipticCurvePublicKey,
        name: str,
        uris: tuple[str, ...],
        hosts: tuple[str, ...],
        now: datetime,
    ) -> bytes:
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in uris]
        names += [x509.DNSName(host) for host in hosts]
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_named(name))
            .issuer_name(self._x509.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BACKDATED)
            .not_valid_after(now + timedelta(days=CERTIFICATE_DAYS))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
            .add_extension(x509.SubjectAlternativeName(names), False)
            .add_extension(x509.ExtendedKeyUsage(both), False)
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM)


def _key_of(request: str) -> ec.EllipticCurvePublicKey:
    try:
        asked = x509.load_pem_x509_csr(request.encode())
        key = asked.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or not asked.is_signature_valid:
            raise ValueError("not a P-256 key")
    except (ValueError, InvalidSignature) as error:
        raise InvalidRequestError(f"the signing request cannot be used: {error}") from error
    return key


def past_half_life(pem: bytes, now: datetime) -> bool:
    """Whether a certificate is to be renewed."""
    certificate = x509.load_pem_x509_certificate(pem)
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return now > begins + (ends - begins) / 2 or now < begins


def new_authority(now: datetime) -> AuthorityKeys:
    """Make an authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _named(f"Carrel {secrets.token_hex(4)}")
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + timedelta(days=_AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
    return AuthorityKeys(pem, _private(key), secrets.token_bytes(KEY_BYTES))


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])

"""A certificate authority as the hub will be one, and whatever a test wants it to sign."""

import ipaddress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from carrel_shared.clock import SystemClock

EDGE = "carrel://role/edge"

Key = ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, in files."""

    ca: Path
    cert: Path
    key: Path

    @property
    def fleet(self) -> dict[str, Any]:
        return {
            "fleet_ca": str(self.ca),
            "fleet_cert": str(self.cert),
            "fleet_key": str(self.key),
        }


@dataclass
class Authority:
    """Signs with one key, kept in memory; files go to `directory`."""

    directory: Path
    name: str = "carrel"
    key: Key = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def __post_init__(self) -> None:
        self.subject = _named(f"{self.name} authority")
        builder = _builder(self.subject, self.subject, self.key, days=2)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        certificate = builder.sign(self.key, hashes.SHA256())
        self.file = self.directory / f"{self.name}-ca.pem"
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        name: str,
        *uris: str,
        hosts: tuple[str, ...] = (),
        days: float = 1,
        passphrase: bytes | None = None,
    ) -> Pair:
        """Sign a certificate that says these URIs and hosts; with negative days it has expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in uris]
        names += [_host(host) for host in hosts]
        builder = _builder(_named(name), self.subject, key, days)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
        certificate = builder.sign(self.key, hashes.SHA256())
        pair = Pair(self.file, self.directory / f"{name}.pem", self.directory / f"{name}.key")
        pair.cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        locked = (
            serialization.BestAvailableEncryption(passphrase)
            if passphrase
            else serialization.NoEncryption()
        )
        form = serialization.PrivateFormat.PKCS8
        pair.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, locked))
        return pair

    def edge(self, name: str = "edge") -> Pair:
        return self.issue(name, EDGE)

    def host(self, host_id: str) -> Pair:
        return self.issue(f"host-{host_id}", f"carrel://host/{host_id}")


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Key, days: float
) -> x509.CertificateBuilder:
    now = SystemClock().now()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=3))
        .not_valid_after(now + timedelta(days=days))
    )

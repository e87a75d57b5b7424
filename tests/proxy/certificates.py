"""Certificates that tests make for themselves."""

import subprocess
from pathlib import Path

from carrel_proxy.tls import CertificateFiles


def make_certificate(
    directory: Path, name: str, *hosts: str, key_options: tuple[str, ...] = ("-nodes",)
) -> CertificateFiles:
    """Make one that vouches for itself, with these hosts as its alternative names."""
    names = ",".join(f"{'IP' if host[:1].isdigit() else 'DNS'}:{host}" for host in hosts)
    key, cert = directory / f"{name}.key", directory / f"{name}.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *key_options,
            *("-days", "2", "-keyout", str(key), "-out", str(cert), "-subj", f"/CN={name}"),
            *(("-addext", f"subjectAltName={names}") if hosts else ()),
        ],
        check=True,
        capture_output=True,
    )
    return CertificateFiles(cert, key)

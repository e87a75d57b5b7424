"""The host's key and certificate, as files."""

import os
from pathlib import Path

from cryptography import x509

from carrel_shared.files import write_atomically
from carrel_shared.fleet import FleetFiles, identity_of
from carrel_shared.fleet_keys import NewKey


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

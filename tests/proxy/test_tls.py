"""TLS of the public side: who is shown which certificate, and what is refused."""

import contextlib
import ssl
from dataclasses import replace
from pathlib import Path

import pytest
from proxy.certificates import make_certificate

from carrel_proxy.core.certificates import dns_names, fits
from carrel_proxy.tls import CertificateFiles, TlsError, public_context


def shown(server: ssl.SSLContext, host: str | None, **wanted: ssl.TLSVersion) -> bytes | None:
    """Shake hands in memory; return the certificate that the client is shown."""
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    for name, value in wanted.items():
        setattr(trust, name, value)
    one, other = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trust.wrap_bio(one, other, server_hostname=host)
    served = server.wrap_bio(other, one, server_side=True)
    for _ in range(4):
        for side in (client, served):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    return client.getpeercert(binary_form=True)


def der(files: CertificateFiles) -> bytes:
    return ssl.PEM_cert_to_DER_cert(files.cert.read_text())


def test_each_host_is_shown_its_own_certificate(tmp_path: Path) -> None:
    main = make_certificate(tmp_path, "main", "hub.example")
    wild = make_certificate(tmp_path, "wild", "*.users.example", "127.0.0.1")
    alice = make_certificate(tmp_path, "alice", "alice.users.example", "a.example")
    server = public_context([main, wild, alice])
    for host, expected in (
        ("hub.example", main),
        ("bob.users.example", wild),
        ("alice.users.example", alice),
        ("ALICE.users.example", alice),
        ("a.example", alice),
        ("a.b.users.example", main),
        ("users.example", main),
        ("nobody.example", main),
        (None, main),
    ):
        assert shown(server, host) == der(expected), host


def test_names_are_read_from_the_certificate(tmp_path: Path) -> None:
    many = make_certificate(tmp_path, "many", *(f"host-{n}.Example" for n in range(40)), "10.0.0.1")
    assert dns_names(der(many)) == [f"host-{n}.example" for n in range(40)]
    assert dns_names(der(make_certificate(tmp_path, "bare"))) == []
    whole = der(many)
    for end in range(len(whole)):
        assert dns_names(whole[:end]) == []
    assert not fits("*.example", "example")
    assert not fits("*.example", ".example")


def test_what_is_old_is_not_spoken(tmp_path: Path) -> None:
    server = public_context([make_certificate(tmp_path, "main", "hub.example")])
    assert server.minimum_version is ssl.TLSVersion.TLSv1_2
    assert shown(server, "hub.example", maximum_version=ssl.TLSVersion.TLSv1_2)
    for cipher in server.get_ciphers():
        assert cipher["aead"], cipher["name"]


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    good = make_certificate(tmp_path, "good", "hub.example")
    other = make_certificate(tmp_path, "other", "hub.example")
    locked = make_certificate(tmp_path, "locked", key_options=("-passout", "pass:opened"))
    for files, words in (
        (replace(good, key=other.key), "other.key"),
        (replace(good, cert=tmp_path / "none.pem"), "No such file"),
        (replace(good, cert=good.key), "PEM"),
        (locked, "encrypted"),
        (replace(locked, passphrase="wrong"), "passphrase"),
    ):
        with pytest.raises(TlsError, match=words):
            public_context([files])
    assert public_context([replace(locked, passphrase="opened")])
    with pytest.raises(TlsError, match="no such ciphers"):
        public_context([good], ciphers="nonsense")
    with pytest.raises(TlsError, match="none"):
        public_context([good], client_ca=tmp_path / "none.pem")

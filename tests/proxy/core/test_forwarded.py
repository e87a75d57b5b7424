"""What the next hop is told of the client."""

import pytest

from carrel_proxy.core.forwarded import forwarded_fields

SENT = {
    b"x-forwarded-for": [b"9.9.9.9, 8.8.8.8"],
    b"x-forwarded-proto": [b"https, http"],
    b"x-forwarded-host": [b"public.test"],
}


def lines(fields: bytes) -> dict[bytes, bytes]:
    pairs = [line.split(b": ") for line in fields.split(b"\r\n") if line]
    return {pair[0][12:]: pair[1] for pair in pairs}


def test_a_client_is_described_by_what_is_seen() -> None:
    assert lines(forwarded_fields(b"1.2.3.4", https=True, host=b"h")) == {
        b"For": b"1.2.3.4",
        b"Proto": b"https",
        b"Host": b"h",
        b"Port": b"443",
    }


def test_a_trusted_proxy_is_believed_and_appended() -> None:
    assert lines(forwarded_fields(b"1.2.3.4", https=False, host=b"h", sent=SENT)) == {
        b"For": b"9.9.9.9, 8.8.8.8, 1.2.3.4",
        b"Proto": b"https",
        b"Host": b"public.test",
        b"Port": b"443",
    }


@pytest.mark.parametrize(
    ("host", "port"), [(b"h", b"80"), (b"h:8000", b"8000"), (b"[::1]", b"80"), (b"[::1]:9", b"9")]
)
def test_the_port_is_the_hosts(host: bytes, port: bytes) -> None:
    assert lines(forwarded_fields(b"1", https=False, host=host))[b"Port"] == port

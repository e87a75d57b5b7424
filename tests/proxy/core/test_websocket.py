"""The handshake's arithmetic. What is refused is tested where it happens."""

from carrel_proxy.core.websocket import accept_for


def test_the_example_of_the_rfc() -> None:
    assert accept_for(b"dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

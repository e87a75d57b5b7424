"""What the next hop is told of the client: `X-Forwarded-*` (no RFC; as everybody has it)."""

from collections.abc import Mapping

_NO_VALUES: list[bytes] = []


def forwarded_fields(
    peer: bytes,
    *,
    https: bool,
    host: bytes,
    sent: Mapping[bytes, list[bytes]] | None = None,
) -> bytes:
    """Return the field lines that say where a request came from.

    Args:
        peer: The address the connection came from.
        https: Whether that connection is TLS.
        host: The request's `Host`.
        sent: The fields of a peer that is itself a trusted proxy: its word counts first, and the
            peer is appended. None for everybody else.
    """
    chain = peer
    proto = b"https" if https else b"http"
    port = _port(host, https=https)
    if sent is not None:
        chain = b", ".join([*sent.get(b"x-forwarded-for", _NO_VALUES), peer])
        claimed = _first(sent, b"x-forwarded-proto")
        if claimed in (b"http", b"https"):
            proto = claimed
            port = _port(host, https=claimed == b"https")
        port_claimed = _first(sent, b"x-forwarded-port")
        if port_claimed.isdigit():
            port = port_claimed
        host = _first(sent, b"x-forwarded-host") or host
    return (
        b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\n"
        b"X-Forwarded-Host: %b\r\nX-Forwarded-Port: %b\r\n" % (chain, proto, host, port)
    )


def _first(sent: Mapping[bytes, list[bytes]], name: bytes) -> bytes:
    values = sent.get(name)
    return values[0].split(b",")[0].strip(b" \t") if values else b""


def _port(host: bytes, *, https: bool) -> bytes:
    _, colon, port = host.rpartition(b":")
    if colon and port.isdigit():
        return port
    return b"443" if https else b"80"

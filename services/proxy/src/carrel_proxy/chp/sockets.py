"""The addresses that are listened on."""

import errno
import socket
from pathlib import Path

from carrel_proxy.chp.options import Options
from carrel_shared.addresses import AddressError, TcpAddress, UnixAddress, bind_address

_EVERYBODY_MAY_CONNECT = 0o666


def bind_public(options: Options) -> list[socket.socket]:
    """Return the public sockets; this and those below raise `AddressError` for what is taken."""
    if options.socket is not None:
        return [_unix(options.socket, _EVERYBODY_MAY_CONNECT)]
    return _tcp(options.ip, options.port)


def bind_api(options: Options) -> list[socket.socket]:
    """Return the API's sockets. A unix one is this account's alone."""
    if options.api_socket is not None:
        return [_unix(options.api_socket, 0o600)]
    return _tcp(options.api_ip, options.api_port)


def bind_metrics(options: Options) -> list[socket.socket]:
    """Return the sockets of the metrics; none if they are not asked for."""
    if options.metrics_socket is not None:
        return [_unix(options.metrics_socket, 0o600)]
    if options.metrics_port is None:
        return []
    return _tcp(options.metrics_ip, options.metrics_port)


def bind_redirect(options: Options) -> list[socket.socket]:
    """Return the sockets of the redirect to HTTPS; none where it makes no sense."""
    if options.redirect_port is None or options.port == 80 or options.socket is not None:
        return []
    return _tcp(options.ip, options.redirect_port)


def _unix(path: str, mode: int) -> socket.socket:
    return bind_address(UnixAddress(str(Path.cwd() / path)), mode=mode)


def _tcp(ip: str, port: int) -> list[socket.socket]:
    """Listen on one address; on all, or on both of localhost's, each family has its socket."""
    pairs = {"": ("0.0.0.0", "::"), "*": ("0.0.0.0", "::"), "localhost": ("127.0.0.1", "::1")}
    if ip not in pairs:
        return [bind_address(TcpAddress(ip.strip("[]"), port))]
    first, second = pairs[ip]
    sockets = [bind_address(TcpAddress(first, port))]
    if (listener := _v6_only(second, port)) is not None:
        sockets.append(listener)
    return sockets


def _v6_only(ip: str, port: int) -> socket.socket | None:
    try:
        listener = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    except OSError:
        return None  # a kernel without IPv6
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((ip, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        if error.errno in _NO_IPV6:
            return None
        raise AddressError(f"cannot listen on [{ip}]:{port}: {error.strerror}") from error
    listener.setblocking(False)
    return listener


_NO_IPV6 = frozenset((errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL))

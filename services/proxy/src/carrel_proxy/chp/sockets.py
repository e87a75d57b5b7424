"""The addresses that are listened on."""

import errno
import os
import socket
from pathlib import Path

from carrel_proxy.chp.options import Options
from carrel_proxy.process.launch import Wanted
from carrel_shared.addresses import AddressError, TcpAddress, UnixAddress, bind_address


def wanted(options: Options) -> list[Wanted]:
    """Return all that is to be listened on. The umask says whose unix sockets are, as JupyterHub
    sets it to say; that of the API is this account's alone.

    What is taken raises `AddressError` when it is bound.
    """
    mode = _by_umask()
    found = _either("public", options.socket, mode, options.ip, options.port)
    found += _either("api", options.api_socket, 0o600, options.api_ip, options.api_port)
    if options.metrics_socket is not None or options.metrics_port is not None:
        port = options.metrics_port or 0
        found += _either("metrics", options.metrics_socket, mode, options.metrics_ip, port)
    if options.redirect_port is not None and options.port != 80 and options.socket is None:
        found += _tcp("redirect", options.ip, options.redirect_port)
    return found


def _by_umask() -> int:
    masked = os.umask(0o077)
    os.umask(masked)
    return 0o777 & ~masked


def _either(role: str, path: str | None, mode: int, ip: str, port: int) -> list[Wanted]:
    if path is None:
        return _tcp(role, ip, port)
    address = UnixAddress(str(Path.cwd() / path))
    return [Wanted(role, str(address), lambda: bind_address(address, mode=mode))]


def _tcp(role: str, ip: str, port: int) -> list[Wanted]:
    """Listen on one address; on all, or on both of localhost's, each family has its socket."""
    pairs = {"": ("0.0.0.0", "::"), "*": ("0.0.0.0", "::"), "localhost": ("127.0.0.1", "::1")}
    if ip not in pairs:
        address = TcpAddress(ip.strip("[]"), port)
        return [Wanted(role, str(address), lambda: bind_address(address))]
    first, second = pairs[ip]
    return [
        Wanted(role, f"{first}:{port}", lambda: bind_address(TcpAddress(first, port))),
        Wanted(role, f"[{second}]:{port}", lambda: _v6_only(second, port)),
    ]


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

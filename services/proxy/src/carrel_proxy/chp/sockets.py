"""The addresses that are listened on, and TLS on each side."""

import errno
import socket
import ssl
from pathlib import Path

from carrel_proxy.chp.options import Options, OptionsError, TlsFiles
from carrel_proxy.tls import CertificateFiles, TlsError, public_context
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
    if options.redirect_port is None or options.port == 80:
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


def public_tls(options: Options) -> ssl.SSLContext | None:
    """Return what the public side speaks TLS with; None for plain HTTP.

    Raises:
        OptionsError: If a file cannot be used.
    """
    files = options.tls
    wanted = ssl.CERT_NONE
    if files.request_cert:
        wanted = ssl.CERT_REQUIRED if files.reject_unauthorized else ssl.CERT_OPTIONAL
    if files.key is None or files.cert is None:
        return None
    try:
        return public_context(
            [CertificateFiles(files.cert, files.key, files.passphrase)],
            ciphers=files.ciphers,
            client_ca=files.ca,
            client_certificates=wanted,
        )
    except TlsError as error:
        raise OptionsError(f"--ssl-key, --ssl-cert, --ssl-ca, --ssl-ciphers: {error}") from error


def api_tls(files: TlsFiles) -> dict[str, object]:
    """Return the options that make the API's listener speak TLS; none for plain HTTP.

    Raises:
        OptionsError: If a file cannot be used.
    """
    if not files.is_set:
        return {}
    _load(ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), files, "--api-ssl")
    wanted = ssl.CERT_NONE
    if files.request_cert:
        wanted = ssl.CERT_REQUIRED if files.reject_unauthorized else ssl.CERT_OPTIONAL
    return {
        "ssl_keyfile": str(files.key),
        "ssl_certfile": str(files.cert),
        "ssl_keyfile_password": files.passphrase,
        "ssl_ca_certs": str(files.ca) if files.ca is not None else None,
        "ssl_cert_reqs": int(wanted),
    }


def target_tls(options: Options) -> ssl.SSLContext:
    """Return what targets are spoken to with over TLS. They are verified unless told otherwise.

    Raises:
        OptionsError: If a file cannot be used.
    """
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    _load(context, options.client_tls, "--client-ssl")
    if options.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _load(context: ssl.SSLContext, files: TlsFiles, option: str) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    password = files.passphrase or ""
    if files.cert is not None and files.key is not None:
        try:
            context.load_cert_chain(files.cert, files.key, password=lambda: password)
        except (OSError, ssl.SSLError) as error:
            reason = error.strerror or "not a matching pair, or the passphrase is wrong"
            raise OptionsError(f"{option}-key, {option}-cert: {reason}") from error
    if files.ca is not None:
        try:
            context.load_verify_locations(files.ca)
        except (OSError, ssl.SSLError) as error:
            raise OptionsError(f"{option}-ca: {error.strerror or 'no certificate'}") from error

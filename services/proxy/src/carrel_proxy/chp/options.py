"""The command line of configurable-http-proxy 5.3: every option, what it means here, what is wrong.

Pure but for the texts that argparse prints, and the file that may hold the token.
"""

import argparse
import ipaddress
import re
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from carrel_proxy.chp.arguments import (
    API_PASSPHRASE_VARIABLE,
    PASSPHRASE_VARIABLE,
    TOKEN_FILE_VARIABLE,
    TOKEN_VARIABLE,
    OptionsError,
    parser,
)
from carrel_proxy.chp.targets import read_target
from carrel_proxy.core.head import is_host
from carrel_proxy.errors import BadTargetError

_OWN = ("--config", "--generate-config")
_ASKS = frozenset(("--version", "-V", "--help", "-h"))
_LEVELS = {
    "silly": "debug",
    "debug": "debug",
    "verbose": "debug",
    "http": "info",
    "info": "info",
    "warn": "warning",
    "warning": "warning",
    "error": "error",
}
_KEEP_ALIVE_SECONDS = 5.0
_MAY_BE_EMPTY = ("ip", "api_ip", "metrics_ip", "log_level")

# Names of Node's, without their `_method`. None is what is spoken anyway.
_PROTOCOLS = {
    "TLS": None,
    "SSLv23": None,
    "TLSv1_2": ssl.TLSVersion.TLSv1_2,
    "TLSv1_3": ssl.TLSVersion.TLSv1_3,
}
_OLD_PROTOCOLS = ("SSLv2", "SSLv3", "TLSv1", "TLSv1_1")
_FIELD_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_LOOPBACK = ("127.0.0.0/8", "::1/128")
_FORBIDDEN_CUSTOM = frozenset(
    ("connection", "content-length", "transfer-encoding", "upgrade", "te", "trailer")
)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """What one side's TLS is made of.

    Attributes:
        request_cert: Accept nobody who shows no certificate that `ca` vouches for.
        version: The only version of TLS to speak; None for all that are safe.
    """

    key: Path | None = None
    cert: Path | None = None
    ca: Path | None = None
    request_cert: bool = False
    ciphers: str | None = None
    version: ssl.TLSVersion | None = None
    passphrase: str | None = field(default=None, repr=False)

    @property
    def is_set(self) -> bool:
        return self.key is not None or self.cert is not None


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says, with its defaults filled in.

    Attributes:
        token: What the API's callers show; None leaves it open.
        ignored: Options that mean nothing here, each with the reason.
        timeout: Seconds a client may be silent, None for our own limits.
        proxy_timeout: Seconds a target may be silent, None for ever.
        keep_alive: Seconds a client's connection is kept between two requests.
        storage: Where the routes are kept; None for memory.
        reload_deadline: Seconds that sockets stay open after a reload.
        check: Only see whether all this can be followed.
    """

    ip: str
    port: int
    socket: str | None
    api_ip: str
    api_port: int
    api_socket: str | None
    metrics_ip: str
    metrics_port: int | None
    metrics_socket: str | None
    token: str | None = field(repr=False)
    tls: TlsFiles
    api_tls: TlsFiles
    client_tls: TlsFiles
    default_target: str | None
    error_target: str | None
    error_path: Path | None
    redirect_port: int | None
    redirect_to: int | None
    pid_file: Path | None
    x_forward: bool
    prepend_path: bool
    include_prefix: bool
    auto_rewrite: bool
    change_origin: bool
    protocol_rewrite: str | None
    custom_headers: tuple[tuple[str, str], ...]
    insecure: bool
    host_routing: bool
    log_level: str
    access_log: str
    timeout: float | None
    proxy_timeout: float | None
    keep_alive: float
    trusted_peers: tuple[str, ...]
    workers: int
    storage: Path | None
    reload_deadline: float
    check: bool
    ignored: tuple[tuple[str, str], ...]


def is_meant(arguments: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Whether this program is run as configurable-http-proxy: by its options, or by nothing."""
    if any(argument.partition("=")[0] in _OWN for argument in arguments):
        return False
    if arguments and not _ASKS.issuperset(arguments):
        return True
    return not any(name.startswith("CARREL_PROXY__") for name in environ)


def read_options(arguments: Sequence[str], environ: Mapping[str, str]) -> Options:
    """Read a command line.

    Raises:
        OptionsError: If it contradicts itself, or asks for what is not safe.
        SystemExit: After `--help` and `--version`.
    """
    raw = parser().parse_args(list(arguments))
    for name, value in vars(raw).items():
        if value == "" and name not in _MAY_BE_EMPTY:
            setattr(raw, name, None)  # scripts pass on variables that nobody has set
    if raw.socket is not None and (raw.ip is not None or raw.port is not None):
        raise OptionsError("--socket takes the place of --ip and --port: give one or the other")
    if raw.error_target is not None and raw.error_path is not None:
        raise OptionsError("--error-target and --error-path exclude each other")
    port = 8000 if raw.port is None else raw.port
    tls = _tls(raw, "", environ.get(PASSPHRASE_VARIABLE))
    if raw.redirect_port is not None and not tls.is_set:
        raise OptionsError("--redirect-port needs --ssl-key and --ssl-cert to redirect to")
    for option, url in (
        ("--default-target", raw.default_target),
        ("--error-target", raw.error_target),
    ):
        if url is not None:
            _check_target(option, url)
    token = _token(environ)
    api_ip = "localhost" if raw.api_ip is None else raw.api_ip
    if token is None and raw.api_socket is None and not _is_local(api_ip):
        raise OptionsError(
            f"--api-ip {api_ip!r} can be reached from other machines, and {TOKEN_VARIABLE} is not"
            " set: whoever calls could take over every route. Set a token, or use 127.0.0.1"
        )
    return Options(
        ip=raw.ip or "",
        port=port,
        socket=raw.socket,
        api_ip=api_ip,
        api_port=raw.api_port or (8001 if raw.socket is not None else port + 1),
        api_socket=raw.api_socket,
        metrics_ip=raw.metrics_ip,
        metrics_port=raw.metrics_port or None,
        metrics_socket=raw.metrics_socket,
        token=token,
        tls=tls,
        api_tls=_tls(raw, "api_", environ.get(API_PASSPHRASE_VARIABLE)),
        client_tls=_tls(raw, "client_", None),
        default_target=raw.default_target,
        error_target=raw.error_target,
        error_path=raw.error_path,
        redirect_port=raw.redirect_port,
        redirect_to=raw.redirect_to,
        pid_file=raw.pid_file,
        x_forward=not raw.no_x_forward,
        prepend_path=not raw.no_prepend_path,
        include_prefix=not raw.no_include_prefix,
        auto_rewrite=raw.auto_rewrite,
        change_origin=raw.change_origin,
        protocol_rewrite=raw.protocol_rewrite,
        custom_headers=_custom_headers(raw.custom_header),
        insecure=raw.insecure,
        host_routing=raw.host_routing,
        log_level=_LEVELS.get(raw.log_level.lower(), "info"),
        access_log=raw.access_log or ("all" if raw.log_level.lower() == "debug" else "off"),
        timeout=raw.timeout or None,
        proxy_timeout=raw.proxy_timeout or None,
        keep_alive=raw.keep_alive_timeout or _KEEP_ALIVE_SECONDS,
        trusted_peers=(*_LOOPBACK, *(_network(text) for text in raw.trusted_peer)),
        workers=raw.workers,
        storage=_storage(raw.storage_backend),
        reload_deadline=raw.reload_deadline,
        check=raw.check,
        ignored=tuple(_ignored(raw)),
    )


def _check_target(option: str, url: str) -> None:
    try:
        read_target(url)
    except BadTargetError as error:
        raise OptionsError(f"{option}: {error}") from error


def _tls(raw: argparse.Namespace, side: str, passphrase: str | None) -> TlsFiles:
    key, cert = getattr(raw, f"{side}ssl_key"), getattr(raw, f"{side}ssl_cert")
    if (key is None) != (cert is None):
        option = f"--{side.replace('_', '-')}ssl"
        raise OptionsError(f"{option}-key and {option}-cert belong together")
    return TlsFiles(
        key=key,
        cert=cert,
        ca=getattr(raw, f"{side}ssl_ca"),
        request_cert=getattr(raw, f"{side}ssl_request_cert"),
        ciphers=raw.ssl_ciphers or None,
        version=_version(raw.ssl_protocol),
        passphrase=passphrase,
    )


def _version(name: str | None) -> ssl.TLSVersion | None:
    name = (name or "TLS").removesuffix("_method")
    if name not in _PROTOCOLS and name not in _OLD_PROTOCOLS:
        known = ", ".join((*_PROTOCOLS, *_OLD_PROTOCOLS))
        raise OptionsError(f"--ssl-protocol {name!r}: expected one of {known}")
    return _PROTOCOLS.get(name)


def _token(environ: Mapping[str, str]) -> str | None:
    """Return the API's token, which may be in a file as containers have their secrets."""
    token, path = environ.get(TOKEN_VARIABLE) or None, environ.get(TOKEN_FILE_VARIABLE)
    if not path:
        return token
    if token is not None:
        raise OptionsError(f"{TOKEN_VARIABLE} and {TOKEN_FILE_VARIABLE} exclude each other")
    try:
        token = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise OptionsError(f"{TOKEN_FILE_VARIABLE} {path}: {reason}") from error
    if not token:
        raise OptionsError(f"{TOKEN_FILE_VARIABLE} {path}: the file is empty")
    return token


def _custom_headers(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return the fields to add; of those with one name the last counts."""
    headers = [_custom_header(text) for text in texts]
    return tuple({name.lower(): (name, value) for name, value in headers}.values())


def _custom_header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    name, value = name.strip(), value.strip()
    if (
        not colon
        or not _FIELD_NAME.fullmatch(name)
        or not value.isascii()
        or not value.isprintable()
    ):
        raise OptionsError(f"--custom-header {name!r}: expected Name: value")
    if name.lower() in _FORBIDDEN_CUSTOM:
        raise OptionsError(f"--custom-header {name!r}: this field is the proxy's own")
    if name.lower() == "host" and not is_host(value.encode("ascii")):
        raise OptionsError(f"--custom-header {name!r}: {value!r} is no host")
    return name, value


def _storage(backend: str | None) -> Path | None:
    kind, _, path = (backend or "").partition(":")
    if kind == "file" and not path:
        raise OptionsError("--storage-backend file:PATH needs the path")
    return Path(path) if kind == "file" else None


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise OptionsError(f"--trusted-peer: {error}") from error


def _is_local(ip: str) -> bool:
    if ip == "localhost":
        return True
    try:
        return ipaddress.ip_address(ip).is_loopback
    except ValueError:
        return False


def _ignored(raw: argparse.Namespace) -> list[tuple[str, str]]:
    notes = []
    if (raw.ssl_protocol or "").removesuffix("_method") in _OLD_PROTOCOLS:
        notes.append(("--ssl-protocol", "TLS 1.2 and newer are spoken, nothing older"))
    if "@SECLEVEL" in (raw.ssl_ciphers or ""):
        notes.append(("--ssl-ciphers", "@SECLEVEL is left out: it could let in what is broken"))
    if raw.log_level.lower() not in _LEVELS:
        notes.append(("--log-level", "there is no such level; it is info"))
    if raw.ssl_allow_rc4:
        notes.append(("--ssl-allow-rc4", "RC4 is broken"))
    if raw.ssl_dhparam is not None:
        notes.append(("--ssl-dhparam", "keys are agreed on with ECDHE, which needs no file"))
    if raw.storage_backend not in (None, "memory") and not raw.storage_backend.startswith("file:"):
        words = "it names a Node module; routes are kept in memory, or with file:PATH in a file"
        notes.append(("--storage-backend", words))
    if raw.redirect_port is not None and (raw.port == 80 or raw.socket is not None):
        notes.append(("--redirect-port", "the public side is port 80 or a socket"))
    if raw.api_socket is not None and (raw.api_ip is not None or raw.api_port is not None):
        notes.append(("--api-ip, --api-port", "--api-socket takes their place"))
    return notes

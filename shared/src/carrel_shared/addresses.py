"""Addresses as people write them: `unix:/path`, `127.0.0.1:8000`, `http://host:port`."""

import ipaddress
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx

MAX_UNIX_PATH = 107
"""Bytes a unix socket's path may have (sockaddr_un, less the final NUL)."""


class AddressError(ValueError):
    """An address cannot be read or used; the message says which and why."""


@dataclass(frozen=True, slots=True)
class UnixAddress:
    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class TcpAddress:
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


Address = UnixAddress | TcpAddress


def parse_address(text: str) -> Address:
    """Read `unix:/path`, `host:port`, `[v6]:port` or `http://host:port`.

    Raises:
        AddressError: If it is none of these.
    """
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/") or "\0" in path:
            raise AddressError(f"{text!r}: a unix socket needs an absolute path")
        if len(os.fsencode(path)) > MAX_UNIX_PATH:
            raise AddressError(
                f"{text!r}: a unix socket's path may have {MAX_UNIX_PATH} bytes;"
                " use a shorter directory"
            )
        return UnixAddress(path)
    bare = text.removeprefix("http://").rstrip("/")
    host, colon, port = bare.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise AddressError(f"{text!r}: expected unix:/path or host:port")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not host.isprintable() or any(c in host for c in "/@ ?#"):
        raise AddressError(f"{text!r}: expected unix:/path or host:port")
    return TcpAddress(host, int(port))


def parse_target(text: str) -> Address:
    """Return where a proxy sends requests: what a route may lead to on this machine.

    Raises:
        AddressError: If it is not `unix:/path` or `http://host:port`, or an address that belongs to
            no server of ours.
    """
    if not text.startswith(("unix:", "http://")):
        raise AddressError(f"{text!r}: a target is unix:/path or http://host:port")
    address = parse_address(text)
    if isinstance(address, TcpAddress):
        check_upstream_host(address)
        if not address.port:
            raise AddressError(f"{text!r}: nobody listens on port 0")
    return address


def parse_addresses(text: str) -> list[Address]:
    """Read one address or several, with commas between them.

    Raises:
        AddressError: If one is none, or is there twice.
    """
    found = [parse_address(part.strip()) for part in text.split(",")]
    if len(set(found)) != len(found):
        raise AddressError(f"{text!r}: an address is there twice")
    return found


def check_upstream_host(address: TcpAddress) -> None:
    """Refuse a host that no proxy sends anybody's requests to.

    Raises:
        AddressError: It is link-local, multicast, unspecified, or spelled in an odd way.
    """
    try:
        ip = ipaddress.ip_address(address.host)
    except ValueError:
        if address.host.replace(".", "").isdigit() or address.host.lower().startswith("0x"):
            raise AddressError(f"'{address}': write the address in the usual form") from None
        return
    mapped = getattr(ip, "ipv4_mapped", None)
    if mapped is not None or ip.is_link_local or ip.is_multicast or ip.is_unspecified:
        raise AddressError(f"'{address}': no server is reached at such an address")


def bind_address(address: Address, *, mode: int = 0o600, backlog: int = 2048) -> socket.socket:
    """Return a socket that listens at `address`.

    A unix socket that nobody answers on any more is replaced; one that is in use is not.

    Raises:
        AddressError: If it is taken or may not be bound, saying by what it can be changed.
    """
    if isinstance(address, TcpAddress):
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        where: object = (address.host, address.port)
    else:
        _remove_dead_socket(address)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        where = address.path
    try:
        if isinstance(address, UnixAddress):
            before = os.umask(0o777 & ~mode)
            try:
                listener.bind(where)  # type: ignore[arg-type]
            finally:
                os.umask(before)
        else:
            listener.bind(where)  # type: ignore[arg-type]
        listener.listen(backlog)
    except OSError as error:
        listener.close()
        raise AddressError(f"cannot listen on {address}: {error.strerror}") from error
    listener.setblocking(False)
    return listener


def _remove_dead_socket(address: UnixAddress) -> None:
    path = Path(address.path)
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise AddressError(f"{address}: something that is no socket is in the way; remove it")
    except FileNotFoundError:
        return
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.settimeout(1)
        probe.connect(address.path)
    except (ConnectionRefusedError, FileNotFoundError):
        path.unlink(missing_ok=True)
    except OSError as error:
        raise AddressError(f"{address}: {error.strerror}") from error
    else:
        raise AddressError(f"{address}: another process answers there already")
    finally:
        probe.close()


def call_limits() -> "httpx.Limits":
    """Return how many connections a client has: streams are open for long, and no call is to wait
    until one of them ends."""
    import httpx

    return httpx.Limits(max_connections=None, max_keepalive_connections=20)


def http_client(
    address: Address, *, headers: dict[str, str] | None = None, timeout_seconds: float = 10
) -> "httpx.AsyncClient":
    """Return a client whose relative URLs go to `address`; no redirects, no environment proxies."""
    import httpx  # here, because programs that only read addresses are to stay small

    uds = address.path if isinstance(address, UnixAddress) else None
    base = "http://carrel.internal" if uds else f"http://{address}"
    return httpx.AsyncClient(
        base_url=base,
        headers=headers,
        transport=httpx.AsyncHTTPTransport(
            uds=uds, verify=False, trust_env=False, limits=call_limits()
        ),
        timeout=timeout_seconds,
        trust_env=False,
    )

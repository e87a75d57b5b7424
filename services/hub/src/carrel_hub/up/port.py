"""Whether the public port is free, and who has it if not."""

import errno
import socket
from pathlib import Path

from carrel_hub.up.errors import UpError
from carrel_shared.addresses import TcpAddress

_LISTEN = "0A"


def check_port(address: TcpAddress) -> None:
    """Refuse a port that cannot be bound.

    Raises:
        UpError: Saying who has it, where that can be seen, and how to take another.
    """
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise UpError(f"--bind {address}: {error.strerror or error}") from None
    family, kind, protocol, _, where = found[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(where)
            probe.listen(1)
        except OSError as error:
            raise UpError(_explain(address, error)) from None


def _explain(address: TcpAddress, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        owner = listener_on(address.port)
        who = f" by {owner}" if owner else ""
        return (
            f"port {address.port} is in use{who}. Stop that, or take another port:"
            f" --bind {TcpAddress(address.host, other_port(address.port))}"
        )
    if error.errno == errno.EACCES:
        return (
            f"--bind {address}: ports below 1024 are root's; take one above:"
            f" --bind {TcpAddress(address.host, 8000)}"
        )
    return f"--bind {address}: {error.strerror}"


def other_port(port: int) -> int:
    """Return a port to propose instead."""
    return port + 1 if port < 65535 else 8000


def listener_on(port: int, proc: Path = Path("/proc")) -> str | None:
    """Return `process PID (NAME)` of who listens on a TCP port, as far as we may see it."""
    inodes = set()
    for table in ("net/tcp", "net/tcp6"):
        try:
            rows = (proc / table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            cells = row.split()
            if cells[3] == _LISTEN and int(cells[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{cells[9]}]")
    for entry in proc.iterdir():
        if not inodes or not entry.name.isdigit():
            continue
        try:
            if any(_target(each) in inodes for each in (entry / "fd").iterdir()):
                name = (entry / "comm").read_text(encoding="utf-8", errors="replace").strip()
                return f"process {entry.name} ({name if name.isprintable() else '?'})"
        except OSError:
            continue
    return None


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""

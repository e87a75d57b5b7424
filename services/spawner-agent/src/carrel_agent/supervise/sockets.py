"""Servers' sockets: `RUN/s/ID/http.sock`, bound by the agent, listened on by the server.

As root the directory is root's and the socket group's, 2750, and the socket 0660: the server's
user cannot enter it, so nobody but the agent can put anything in the socket's place. Proxies see
the user behind the socket, because the user's own process calls listen().
"""

import contextlib
import os
import socket
import stat
from pathlib import Path

from carrel_agent.supervise.unix_sockets import number_of, numbers_of

SOCKET_NAME = "http.sock"
NUMBER_NAME = "number"
"""A link, beside the socket, that leads to the number of it."""


def bound_numbers(path: Path) -> set[int]:
    """Return the numbers of the socket that was bound at `path` for a server."""
    try:
        return {int(os.readlink(path.with_name(NUMBER_NAME)))}  # noqa: PTH115 - it is no path
    except FileNotFoundError:
        # An earlier version of the agent bound it, or nobody did.
        return numbers_of(path) if path.exists() else set()


class SocketDirectories:
    """Owns everything below `RUN/s`.

    Args:
        run_dir: The agent's run-time directory.
        group: Who may connect besides the agent; None for nobody.
    """

    def __init__(self, run_dir: Path, *, group: int | None) -> None:
        self._root = run_dir / "s"
        self._group = group if os.geteuid() == 0 else None
        shared = self._group is not None
        _make(run_dir, 0o755 if shared else 0o700)
        _make(self._root, 0o711 if shared else 0o700)
        for place in (run_dir, self._root):  # whoever has the one can put another in the other's
            found = place.lstat()
            own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
            if not own or found.st_mode & 0o022:
                raise PermissionError(
                    f"{place} must be a directory of the agent's own account that nobody else can"
                    " write to; remove it, or change run_dir"
                )

    def path(self, server_id: str) -> Path:
        """Return where a server's socket is."""
        return self._root / server_id / SOCKET_NAME

    def ids(self) -> list[str]:
        """Return the servers that have a directory."""
        return sorted(entry.name for entry in self._root.iterdir())

    def bind(self, server_id: str) -> socket.socket:
        """Make a server's directory anew and return its bound socket, which does not listen yet.

        Raises:
            OSError: If that is not possible.
        """
        self.remove(server_id)
        path = self.path(server_id)
        path.parent.mkdir(mode=0o700)
        if self._group is not None:
            os.chown(path.parent, 0, self._group)
            path.parent.chmod(0o2750)
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # First of all: who looks for the process that has it looks for this number.
            path.with_name(NUMBER_NAME).symlink_to(str(number_of(bound.fileno())))
            bound.bind(str(path))
            path.chmod(0o660 if self._group is not None else 0o600)
        except BaseException:
            bound.close()
            raise
        return bound

    def remove(self, server_id: str) -> None:
        """Remove a server's directory, if there is one."""
        path = self.path(server_id)
        for each in (path, path.with_name(NUMBER_NAME)):
            with contextlib.suppress(FileNotFoundError):
                each.unlink()
        with contextlib.suppress(FileNotFoundError):
            path.parent.rmdir()


def _make(path: Path, mode: int) -> None:
    """Make a directory with exactly this mode; one that is there keeps its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        return
    path.chmod(mode)
